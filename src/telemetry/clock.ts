import { setTimeout as wait } from 'node:timers/promises';

/** Time, as far as logic depends on it, so that tests can turn it by hand. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /**
   * Waits.
   *
   * @throws the signal's reason as soon as it aborts
   */
  sleep(durationMs: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** The machine's own time. A sleep does not keep the process alive. */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleep(durationMs, { signal }) {
    try {
      await wait(durationMs, undefined, { signal, ref: false });
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  },
};
