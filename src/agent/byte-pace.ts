import type { Clock } from '../telemetry/clock.ts';

/** Shorter waits than this are saved up. */
const minSleepMs = 10;

/**
 * Holds work that moves bytes to a rate: whoever moved some sleeps for as long as they may take,
 * less what was lost elsewhere meanwhile. For one worker at a time.
 */
export class BytePace {
  readonly #bytesPerSecond: number;
  readonly #clock: Clock;
  #paidUntilMs = 0;

  constructor(options: { readonly bytesPerSecond: number }, dependencies: { clock: Clock }) {
    this.#bytesPerSecond = options.bytesPerSecond;
    this.#clock = dependencies.clock;
  }

  /**
   * Counts bytes that were moved and waits until the next may be.
   *
   * @throws the signal's reason as soon as it aborts
   */
  async take(movedBytes: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const costMs = (movedBytes * 1000) / this.#bytesPerSecond;
    const nowMs = this.#clock.now();
    // The upper bound matters when the machine's time is set back.
    const paidUntilMs = Math.min(Math.max(this.#paidUntilMs, nowMs), nowMs + minSleepMs) + costMs;
    this.#paidUntilMs = paidUntilMs;
    if (paidUntilMs - nowMs < minSleepMs) return;
    await this.#clock.sleep(paidUntilMs - nowMs, { signal });
  }
}
