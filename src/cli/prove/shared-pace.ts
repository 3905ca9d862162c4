import { BytePace } from '../../agent/byte-pace.ts';
import type { Clock } from '../../telemetry/clock.ts';

/** One rate for several workers: each waits its turn, so that all together keep to it. */
export class SharedPace {
  readonly #pace: BytePace;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: { readonly bytesPerSecond: number }, dependencies: { clock: Clock }) {
    this.#pace = new BytePace(options, dependencies);
  }

  /**
   * Counts bytes that were moved and waits until the next may be.
   *
   * @throws the signal's reason as soon as it aborts
   */
  async take(movedBytes: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const turn = this.#last.then(() => this.#pace.take(movedBytes, { signal }));
    // One that is stopped holds up nobody.
    this.#last = turn.catch(() => undefined);
    await turn;
  }
}
