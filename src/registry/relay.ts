import { DigestVerifier } from '../oci/verifier.ts';
import type { Digest } from '../oci/digest.ts';
import { SourceError, type OpenedBody, type Stretch } from './sources/source.ts';
import { withStallGuard } from './stall-guard.ts';

/** Blobs up to this size are checked before their first byte goes out. */
const CHECKED_FIRST_BYTES = 1024 * 1024;

/** Finds the next source after one has failed; undefined when there is none left. */
export type NextSource = (
  failed: OpenedBody,
  error: SourceError,
  needed: { readonly start: number; readonly hashed: boolean },
) => Promise<OpenedBody | undefined>;

/** Takes a copy of a blob as it passes. */
export interface BlobTap {
  write(chunk: Buffer): Promise<void>;
  /** All bytes have passed and are right. */
  commit(): Promise<void>;
  /** What has passed is worth nothing. */
  abort(): Promise<void>;
}

export interface RelayOptions {
  readonly digest: Digest;
  /** What the client gets. */
  readonly window: Stretch;
  readonly sizeBytes: number;
  /** A body without progress changes its source after this many milliseconds. */
  readonly stallMs: number;
  /** How many times the source may change without a byte of progress, or after wrong bytes. */
  readonly maxIdleSwitches: number;
}

/** The bytes that came do not have the digest: what the client has got of them is poison. */
export class WrongBytesError extends Error {
  override readonly name = 'WrongBytesError';
}

/**
 * ONE body out of as many sources as it takes. Knows the next byte that is needed, continues the
 * next source there, hashes whole blobs over all sources and holds the end back until the hash is
 * right. The reader never sees a change of source.
 */
export class Relay {
  readonly #options: RelayOptions;
  readonly #nextSource: NextSource;
  #tap: BlobTap | undefined;
  readonly #whole: boolean;
  readonly #used: string[] = [];
  #verifier: DigestVerifier | undefined;
  #body: OpenedBody;
  /** The next byte that is needed from a source. */
  #position: number;
  /** Bytes that wait for the verdict on the whole. */
  #held: Buffer[] = [];
  #emittedBytes = 0;
  #hasStarted = false;

  constructor(
    options: RelayOptions,
    dependencies: { first: OpenedBody; nextSource: NextSource; tap?: BlobTap | undefined },
  ) {
    this.#options = options;
    this.#body = dependencies.first;
    this.#nextSource = dependencies.nextSource;
    this.#tap = dependencies.tap;
    const { window, sizeBytes } = options;
    this.#whole = window.start === 0 && window.end === sizeBytes - 1;
    this.#position = window.start;
    this.#verifier = this.#newVerifier();
  }

  /** Every source that has given bytes so far, in order, each once in a row. */
  get sources(): readonly string[] {
    return this.#used;
  }

  /** Bytes that the reader has been given. */
  get emittedBytes(): number {
    return this.#emittedBytes;
  }

  /** Stops whatever source is running. */
  cancel(): void {
    this.#body.cancel();
    // Chunks that nobody has begun to read clean nothing up.
    if (!this.#hasStarted) void this.#dropTap();
  }

  /**
   * The bytes of the window, in order.
   *
   * @throws WrongBytesError when the client holds bytes that are wrong; SourceError when no source
   *   is left to continue with
   */
  async *chunks(): AsyncGenerator<Buffer> {
    let idleSwitches = 0;
    let wrongRounds = 0;
    this.#hasStarted = true;
    try {
      for (;;) {
        const before = this.#position;
        try {
          yield* this.#pass();
          yield* this.#finish();
          return;
        } catch (error) {
          if (!(error instanceof SourceError)) throw error;
          this.#body.cancel();
          idleSwitches = this.#position > before ? 0 : idleSwitches + 1;
          if (error.outcome === 'wrong_bytes') wrongRounds += 1;
          await this.#switch(error, Math.max(idleSwitches, wrongRounds));
        }
      }
    } finally {
      this.#body.cancel();
      // After a commit this does nothing.
      await this.#dropTap();
    }
  }

  async #dropTap(): Promise<void> {
    const tap = this.#tap;
    this.#tap = undefined;
    await tap?.abort();
  }

  /** Passes on what the current source gives, to the end of the window. */
  async *#pass(): AsyncGenerator<Buffer> {
    const { window, stallMs } = this.#options;
    const body = this.#body;
    if (body.stretch.start > this.#position) {
      throw new SourceError('wrong_range', `${body.source} starts behind the byte that is needed`);
    }
    if (this.#used.at(-1) !== body.source) this.#used.push(body.source);
    const hashesPrefix = this.#verifier !== undefined && !this.#whole;
    const lastNeeded = hashesPrefix ? this.#options.sizeBytes - 1 : window.end;
    if (hashesPrefix && body.stretch.start > 0) {
      throw new SourceError('wrong_range', `${body.source} leaves out bytes that must be hashed`);
    }
    let at = body.stretch.start;
    if (at > lastNeeded) return;
    for await (const chunk of withStallGuard(body, stallMs)) {
      const end = at + chunk.length;
      // A source that cannot do ranges sends more than the window, but never more than the blob.
      if (end > Math.max(lastNeeded, body.stretch.end) + 1) {
        throw new SourceError('too_long', `${body.source} sends more bytes than the blob has`);
      }
      const fresh = at >= this.#position ? chunk : chunk.subarray(this.#position - at);
      if (hashesPrefix) this.#verifier?.update(chunk);
      else if (fresh.length > 0) this.#verifier?.update(fresh);
      at = end;
      if (fresh.length > 0 && this.#position <= window.end) {
        const wanted = fresh.subarray(0, window.end + 1 - this.#position);
        this.#position += wanted.length;
        if (this.#whole && this.#tap !== undefined) await this.#tap.write(wanted);
        if (this.#mustHold()) this.#held.push(wanted);
        else {
          this.#emittedBytes += wanted.length;
          yield wanted;
        }
      }
      if (at > lastNeeded) return;
    }
    throw new SourceError('cut', `${body.source} ended at byte ${at}`);
  }

  /** Whether what has just come must wait for the verdict: the last bytes, or all of a small blob. */
  #mustHold(): boolean {
    if (this.#verifier === undefined) return false;
    const { sizeBytes, window } = this.#options;
    return sizeBytes <= CHECKED_FIRST_BYTES || this.#position > window.end;
  }

  /** All bytes are there: lets the rest out if they are right. */
  async *#finish(): AsyncGenerator<Buffer> {
    if (this.#verifier?.matches() === false) {
      this.#held = [];
      const message = `${this.#options.digest} came wrong from ${this.#used.join(', ')}`;
      if (this.#emittedBytes > 0) throw new WrongBytesError(message);
      // A tap cannot begin again: this blob's copy is given up, the blob itself is not.
      await this.#dropTap();
      this.#position = this.#options.window.start;
      throw new SourceError('wrong_bytes', message);
    }
    if (this.#whole) await this.#tap?.commit();
    for (const piece of this.#held) {
      this.#emittedBytes += piece.length;
      yield piece;
    }
    this.#held = [];
  }

  async #switch(error: SourceError, idleSwitches: number): Promise<void> {
    const failed = this.#body;
    const { maxIdleSwitches, sizeBytes } = this.#options;
    if (idleSwitches > maxIdleSwitches) throw error;
    if (!this.#whole && this.#verifier !== undefined) {
      // A stretch whose source could not vouch for it: what is out cannot be checked any more.
      if (this.#emittedBytes > 0) throw error;
      this.#held = [];
      this.#position = this.#options.window.start;
    }
    const needed = { start: this.#position, hashed: this.#whole };
    let next = await this.#nextSource(failed, error, needed);
    for (let tries = 0; next !== undefined && next.sizeBytes !== sizeBytes; tries += 1) {
      next.cancel();
      if (tries === maxIdleSwitches) throw error;
      const wrong = new SourceError('wrong_size', `${next.source} has another size of the blob`);
      next = await this.#nextSource(next, wrong, needed);
    }
    if (next === undefined) throw error;
    this.#body = next;
    if (!this.#whole || error.outcome === 'wrong_bytes') this.#verifier = this.#newVerifier();
  }

  #newVerifier(): DigestVerifier | undefined {
    if (this.#whole || !this.#body.trusted) return new DigestVerifier(this.#options.digest);
    return undefined;
  }
}
