/** Waits that double from try to try, each by chance between half and all of it. */
export class Backoff {
  readonly #options: { readonly firstMs: number; readonly maxMs: number };
  readonly #random: () => number;
  #failures = 0;

  constructor(
    options: { readonly firstMs: number; readonly maxMs: number },
    dependencies: { random: () => number },
  ) {
    this.#options = options;
    this.#random = dependencies.random;
  }

  /** How long to wait after one more failure, milliseconds. */
  nextMs(): number {
    const { firstMs, maxMs } = this.#options;
    const fullMs = Math.min(maxMs, firstMs * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return fullMs * (0.5 + this.#random() / 2);
  }

  /** All is well again. */
  reset(): void {
    this.#failures = 0;
  }
}
