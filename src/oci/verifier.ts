import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';

import { digestAlgorithm, digestHex } from './digest.ts';
import type { Digest } from './digest.ts';

/** Hashes bytes as they pass and says in the end whether they are those that a digest names. */
export class DigestVerifier {
  readonly #hash: Hash;
  readonly #expectedHex: string;
  #receivedBytes = 0;
  #verdict: boolean | undefined;

  constructor(digest: Digest) {
    this.#hash = createHash(digestAlgorithm(digest));
    this.#expectedHex = digestHex(digest);
  }

  /**
   * Takes the next bytes, in order.
   *
   * @throws after {@link matches}, because the hash is finished by then
   */
  update(chunk: Uint8Array): void {
    if (this.#verdict !== undefined) {
      throw new Error('Cannot hash more bytes: the verdict is already given');
    }
    this.#hash.update(chunk);
    this.#receivedBytes += chunk.byteLength;
  }

  /** How many bytes have been hashed so far. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Finishes the hash. Later calls give the same answer. */
  matches(): boolean {
    this.#verdict ??= this.#hash.digest('hex') === this.#expectedHex;
    return this.#verdict;
  }
}
