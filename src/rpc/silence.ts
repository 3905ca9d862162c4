/** Who has been silent for longer is not waited for, milliseconds: most restarts take less. */
const LONG_MS = 5000;
/**
 * But this long, milliseconds. Between two tries to connect to who was away a call fails without
 * one: it may be back.
 */
const MOMENT_MS = 250;
/** What was heard, or not, this long ago says nothing any more, milliseconds. */
const FORGET_MS = 600_000;

/**
 * For how long somebody has given no answer, and so how long it makes sense to wait for one: what
 * restarts comes back within seconds, what has been away for longer is probably dead.
 */
export class Silence {
  #sinceMs: number | undefined;
  #lastMs = 0;

  /** There was an answer. */
  end(): void {
    this.#sinceMs = undefined;
  }

  /** There was none at this time, milliseconds since the epoch. */
  note(nowMs: number): void {
    if (nowMs - this.#lastMs >= FORGET_MS) this.#sinceMs = undefined;
    this.#sinceMs ??= nowMs;
    this.#lastMs = nowMs;
  }

  /**
   * For how long to wait for an answer now, milliseconds. Never less than a moment; without a bound
   * when the last word was an answer.
   */
  patienceMs(nowMs: number): number {
    if (this.#sinceMs === undefined) return Number.POSITIVE_INFINITY;
    return Math.max(MOMENT_MS, this.#sinceMs + LONG_MS - nowMs);
  }
}
