/** Where the demo writes. */
export interface Output {
  readonly write: (text: string) => void;
  readonly colours: boolean;
}

/** Tells what happens, with the seconds since the beginning. */
export class Timeline {
  readonly #output: Output;
  readonly #startedMs = performance.now();

  constructor(output: Output) {
    this.#output = output;
  }

  /** A line without a time, such as the first and the last. */
  plain(text: string): void {
    this.#output.write(`${text}\n`);
  }

  /** A heading for what follows. */
  heading(text: string): void {
    this.#output.write(`\n${this.#paint(text, '1')}\n`);
  }

  /** Something has happened. */
  event(text: string): void {
    this.#output.write(`${this.#clock()}  ${text}\n`);
  }

  /** Something went as it had to. */
  good(text: string): void {
    this.#output.write(`${this.#clock()}  ${this.#paint('ok', '32')}  ${text}\n`);
  }

  /** Something went wrong. */
  bad(text: string): void {
    this.#output.write(`${this.#clock()}  ${this.#paint('FAILED', '31')}  ${text}\n`);
  }

  /** Seconds since the beginning. */
  seconds(): number {
    return (performance.now() - this.#startedMs) / 1000;
  }

  #clock(): string {
    return `${this.seconds().toFixed(1).padStart(6)} s`;
  }

  #paint(text: string, code: string): string {
    return this.#output.colours ? `\u001b[${code}m${text}\u001b[0m` : text;
  }
}

/** A size as people read it. */
export function megabytes(sizeBytes: number): string {
  if (sizeBytes < 1_000_000) return `${(sizeBytes / 1000).toFixed(1)} kB`;
  return `${(sizeBytes / 1_000_000).toFixed(1)} MB`;
}
