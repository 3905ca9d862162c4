import type { Digest } from '../../oci/digest.ts';

/** One blob, from one use to the next. */
export interface UsageEntry {
  readonly sizeBytes: number;
}

/** Which blobs a store holds, how many bytes each has, and which was used longest ago. */
export class Usage {
  /** From the one used longest ago to the latest. */
  readonly #entries = new Map<Digest, UsageEntry>();
  #totalBytes = 0;

  get totalBytes(): number {
    return this.#totalBytes;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Notes that a blob is there and has just been used. */
  touch(digest: Digest, sizeBytes: number): void {
    this.remove(digest);
    this.#entries.set(digest, { sizeBytes });
    this.#totalBytes += sizeBytes;
  }

  /** What the latest use left behind; another object after every use. */
  get(digest: Digest): UsageEntry | undefined {
    return this.#entries.get(digest);
  }

  /** Forgets a blob. */
  remove(digest: Digest): void {
    this.#totalBytes -= this.#entries.get(digest)?.sizeBytes ?? 0;
    this.#entries.delete(digest);
  }

  /** The blob that was used longest ago. */
  oldest(): Digest | undefined {
    return this.#entries.keys().next().value;
  }
}
