/** Where the demo writes. */
export interface Output {
  readonly write: (text: string) => void;
  readonly colours: boolean;
}

const BOLD = '1';
const DIM = '2';
const RED = '31';
const GREEN = '32';

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
    this.#output.write(`\n${this.#paint(text, BOLD)}\n`);
  }

  /** Something has happened, or begins. */
  event(text: string): void {
    this.#output.write(`${this.#clock()}  ${text}\n`);
  }

  /** A detail of what happens. */
  detail(text: string): void {
    this.#output.write(`${this.#clock()}  ${this.#paint(`    ${text}`, DIM)}\n`);
  }

  /** Something went as it had to. */
  good(text: string): void {
    this.#output.write(`${this.#clock()}  ${this.#paint('ok', GREEN)}  ${text}\n`);
  }

  /** Something went wrong. */
  bad(text: string): void {
    this.#output.write(`${this.#clock()}  ${this.#paint('FAILED', RED)}  ${text}\n`);
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
  if (sizeBytes < 1000) return `${sizeBytes} B`;
  if (sizeBytes < 1_000_000) return `${(sizeBytes / 1000).toFixed(1)} kB`;
  return `${(sizeBytes / 1_000_000).toFixed(1)} MB`;
}
