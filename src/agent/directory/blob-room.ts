import { rm, stat } from 'node:fs/promises';

import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { isMissing, type BlobFiles } from '../blob-files.ts';
import type { BlobInfo } from '../store.ts';
import { Usage } from './usage.ts';

export interface BlobRoomOptions {
  /** Of all blobs together, those that are being written included. */
  readonly maxSizeBytes: number;
  readonly maxBlobs: number;
}

export interface BlobRoomDependencies {
  readonly files: BlobFiles;
  /** Told which blobs have gone to make room. */
  readonly onEvicted: (digests: ReadonlySet<Digest>) => Promise<void>;
  readonly log: Pick<Logger, 'debug' | 'warn'>;
}

/** The room that blobs take in a directory: the ones used longest ago make room for new ones. */
export class BlobRoom {
  readonly #options: BlobRoomOptions;
  readonly #files: BlobFiles;
  readonly #onEvicted: BlobRoomDependencies['onEvicted'];
  readonly #log: BlobRoomDependencies['log'];
  readonly #usage = new Usage();
  /** What unfinished writes have taken so far. */
  #reservedBytes = 0;
  #lastEviction: Promise<unknown> = Promise.resolve();

  constructor(options: BlobRoomOptions, dependencies: BlobRoomDependencies) {
    this.#options = options;
    this.#files = dependencies.files;
    this.#onEvicted = dependencies.onEvicted;
    this.#log = dependencies.log;
  }

  /**
   * Counts what is there already, by when it was last used, and removes what exceeds the bound.
   *
   * @returns what was there
   */
  async takeStock(): Promise<ReadonlySet<Digest>> {
    const found: { digest: Digest; sizeBytes: number; usedAtMs: number }[] = [];
    for await (const { digest, sizeBytes } of this.#files.list()) {
      const usedAtMs = await lastUseOf(this.#files.pathOf(digest));
      found.push({ digest, sizeBytes, usedAtMs });
    }
    found.sort((a, b) => a.usedAtMs - b.usedAtMs);
    for (const { digest, sizeBytes } of found) this.#usage.touch(digest, sizeBytes);
    await this.#evict();
    return new Set(found.map(({ digest }) => digest));
  }

  /** Looks for a blob, and counts it as used now, or as gone. */
  async use<T extends BlobInfo>(
    digest: Digest,
    look: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const before = this.#usage.get(digest);
    const found = await look();
    if (found === undefined) {
      // It may have been committed since it was looked for.
      if (this.#usage.get(digest) === before) this.#usage.remove(digest);
      return undefined;
    }
    this.#usage.touch(digest, found.sizeBytes);
    // Somebody else may have put it there, or changed it.
    if (before?.sizeBytes !== found.sizeBytes) await this.#evict();
    return found;
  }

  /**
   * Takes room for a part of a blob that is being written.
   *
   * @throws when nothing can be removed that would make room for it
   */
  async reserve(digest: Digest, sizeBytes: number): Promise<void> {
    this.#reservedBytes += sizeBytes;
    await this.#evict();
    if (this.#usage.totalBytes + this.#reservedBytes <= this.#options.maxSizeBytes) return;
    this.#reservedBytes -= sizeBytes;
    throw new Error(`Cannot keep ${digest}: the store has no more room`);
  }

  /** Gives back the room of a write that has come to nothing. */
  release(sizeBytes: number): void {
    this.#reservedBytes -= sizeBytes;
  }

  /** A write is complete: what it took is a blob now. */
  commit(digest: Digest, sizeBytes: number): Promise<void> {
    this.#reservedBytes -= sizeBytes;
    this.#usage.touch(digest, sizeBytes);
    return this.#evict();
  }

  /**
   * Removes a blob.
   *
   * @returns whether it was there
   */
  async remove(digest: Digest): Promise<boolean> {
    this.#usage.remove(digest);
    try {
      await rm(this.#files.pathOf(digest));
      return true;
    } catch (error) {
      if (!isMissing(error)) {
        this.#log.warn({ err: error, digest }, 'Cannot remove a blob');
      }
      return false;
    }
  }

  /** Waits for removals that are under way. */
  async settled(): Promise<void> {
    await this.#lastEviction;
  }

  /** Removes the blobs used longest ago until the rest is within the bounds. */
  #evict(): Promise<void> {
    if (!this.#isOverBound()) return Promise.resolve();
    const eviction = this.#lastEviction.then(async () => {
      const evicted = new Set<Digest>();
      while (this.#isOverBound()) {
        const oldest = this.#usage.oldest();
        if (oldest === undefined) break;
        await this.remove(oldest);
        evicted.add(oldest);
      }
      await this.#onEvicted(evicted);
      this.#log.debug({ blobs: evicted.size }, 'Removed blobs to make room');
    });
    this.#lastEviction = eviction.catch(() => undefined);
    return eviction;
  }

  #isOverBound(): boolean {
    const { maxSizeBytes, maxBlobs } = this.#options;
    const usage = this.#usage;
    return usage.totalBytes + this.#reservedBytes > maxSizeBytes || usage.count > maxBlobs;
  }
}

/** When a file was last read or written, in milliseconds since the epoch; 0 when it is gone. */
async function lastUseOf(path: string): Promise<number> {
  try {
    const { atimeMs, mtimeMs } = await stat(path);
    return Math.max(atimeMs, mtimeMs);
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}
