/** Lets the same thing be said once in a while, however often it happens. */
export class Seldom {
  readonly #options: { readonly intervalMs: number; readonly maxKeys: number };
  readonly #now: () => number;
  readonly #saidAtMs = new Map<string, number>();

  /** @param options.maxKeys how many different things are remembered; the oldest go first */
  constructor(
    options: { readonly intervalMs: number; readonly maxKeys: number },
    dependencies: { now?: () => number } = {},
  ) {
    this.#options = options;
    this.#now = dependencies.now ?? Date.now;
  }

  /** Whether it is time to say this, which counts as having said it. */
  isDue(key: string): boolean {
    const { intervalMs, maxKeys } = this.#options;
    const nowMs = this.#now();
    const saidAtMs = this.#saidAtMs.get(key);
    if (saidAtMs !== undefined && nowMs - saidAtMs < intervalMs) return false;
    this.#saidAtMs.delete(key);
    this.#saidAtMs.set(key, nowMs);
    const [oldest] = this.#saidAtMs.keys();
    if (this.#saidAtMs.size > maxKeys && oldest !== undefined) this.#saidAtMs.delete(oldest);
    return true;
  }
}
