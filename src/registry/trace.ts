/** One source that was tried for a request. */
export interface Attempt {
  /** "upstream" or "node/<name>". */
  readonly source: string;
  /** "ok", or why not, in a word: "refused", "timeout", "not_held", "wrong_bytes" … */
  readonly outcome: string;
  /** How long it took until then, milliseconds. */
  readonly ms: number;
}

/** How many attempts a log line shows at most. */
const MAX_ATTEMPTS = 16;

/** What was tried to answer one request, for its log line. */
export class Trace {
  readonly #startedAtMs = performance.now();
  readonly #attempts: Attempt[] = [];
  #passedOver: string | undefined;

  /** Milliseconds since the request came in. */
  elapsedMs(): number {
    return Math.round((performance.now() - this.#startedAtMs) * 10) / 10;
  }

  /** Starts the clock of an attempt; the returned function notes its outcome. */
  begin(source: string): (outcome: string) => void {
    const startedAtMs = performance.now();
    let noted = false;
    return (outcome) => {
      if (noted || this.#attempts.length >= MAX_ATTEMPTS) return;
      noted = true;
      const ms = Math.round((performance.now() - startedAtMs) * 10) / 10;
      this.#attempts.push({ source, outcome, ms });
    };
  }

  /**
   * The upstream is not the first to be asked, because of what happened before this request.
   *
   * @param cause in a word, as outcomes are
   */
  passOver(cause: string): void {
    this.#passedOver ??= cause;
  }

  /** Why the upstream was passed over; undefined when it was not, or only because policy says so. */
  get passedOver(): string | undefined {
    return this.#passedOver;
  }

  get attempts(): readonly Attempt[] {
    return this.#attempts;
  }
}
