import { within } from '../telemetry/within.ts';
import type { Upstreams } from './upstream/upstreams.ts';

/** How long one look may hold up whoever asks, milliseconds; it goes on behind their back. */
const LOOK_MS = 1500;

/**
 * Whether registries have answered this process since its start. An update of all nodes stops at a
 * process that is not ready, so it stops while a registry is down; a process that was ready before
 * stays so, since an update would replace at once whatever is not.
 */
export class FirstAnswers {
  readonly #upstreams: Pick<Upstreams, 'get'>;
  readonly #awaited: Set<string>;
  #isReady = false;

  /** @param options.names registries, as images name them */
  constructor(
    options: { readonly names: readonly string[] },
    dependencies: { upstreams: Pick<Upstreams, 'get'> },
  ) {
    this.#awaited = new Set(options.names);
    this.#upstreams = dependencies.upstreams;
  }

  /** Waits for others from now on, unless the wait is over for good. */
  replace(names: readonly string[]): void {
    this.#awaited.clear();
    for (const name of names) this.#awaited.add(name);
  }

  /**
   * Looks at those that have not answered yet. Registries that policy does not allow are not
   * waited for.
   *
   * @returns true, for good, when all have answered; else which have not
   */
  async check(): Promise<true | string> {
    if (this.#isReady) return true;
    await Promise.all([...this.#awaited].map((name) => this.#look(name)));
    this.#isReady = this.#awaited.size === 0;
    if (this.#isReady) return true;
    return `waiting for a first answer of ${[...this.#awaited].join(', ')}`;
  }

  async #look(name: string): Promise<void> {
    const upstream = this.#upstreams.get(name);
    if (upstream !== undefined && !upstream.hasAnswered) {
      const answers = await within(LOOK_MS, upstream.look());
      if (answers !== true) return;
    }
    this.#awaited.delete(name);
  }
}
