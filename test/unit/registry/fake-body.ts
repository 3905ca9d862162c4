import type { OpenedBody } from '../../../src/registry/sources/source.ts';

type Step = Buffer | Error | 'stall';

/** A source's body that plays steps, or whose chunks a test pushes as it goes. */
export class FakeBody implements OpenedBody {
  readonly source: string;
  readonly sizeBytes: number;
  readonly stretch: { readonly start: number; readonly end: number };
  readonly trusted: boolean;
  readonly chunks: AsyncIterable<Buffer>;
  /** How often it was told to stop. */
  cancels = 0;
  /** How many chunks the reader has asked for. */
  pulls = 0;
  #steps: Step[];
  #isOpen: boolean;
  #wake = Promise.withResolvers<undefined>();

  /** @param options.steps ends after them; without steps it stays open until `end` */
  constructor(options: {
    readonly source?: string;
    readonly sizeBytes: number;
    readonly start?: number;
    readonly end?: number;
    readonly trusted?: boolean;
    readonly steps?: readonly Step[];
  }) {
    this.source = options.source ?? 'upstream';
    this.sizeBytes = options.sizeBytes;
    this.stretch = { start: options.start ?? 0, end: options.end ?? options.sizeBytes - 1 };
    this.trusted = options.trusted ?? false;
    this.#steps = [...(options.steps ?? [])];
    this.#isOpen = options.steps === undefined;
    this.chunks = this.#iterate();
  }

  push(...chunks: Buffer[]): void {
    this.#steps.push(...chunks);
    this.#signal();
  }

  end(): void {
    this.#isOpen = false;
    this.#signal();
  }

  cancel(): void {
    this.cancels += 1;
    this.#signal();
  }

  #signal(): void {
    this.#wake.resolve(undefined);
    this.#wake = Promise.withResolvers();
  }

  async *#iterate(): AsyncGenerator<Buffer> {
    for (;;) {
      this.pulls += 1;
      const step = await this.#nextStep();
      if (step === undefined) return;
      yield step;
    }
  }

  async #nextStep(): Promise<Buffer | undefined> {
    for (;;) {
      if (this.cancels > 0) throw new Error('the body was cancelled');
      const [step] = this.#steps;
      if (step === undefined && !this.#isOpen) return undefined;
      if (step instanceof Error) throw step;
      if (step === undefined || step === 'stall') {
        await this.#wake.promise;
        continue;
      }
      this.#steps.shift();
      return step;
    }
  }
}

/** Cuts bytes into chunks of a size. */
export function inChunks(bytes: Buffer, chunkBytes: number): Buffer[] {
  const count = Math.ceil(bytes.length / chunkBytes);
  return Array.from({ length: count }, (_, index) =>
    bytes.subarray(index * chunkBytes, (index + 1) * chunkBytes),
  );
}
