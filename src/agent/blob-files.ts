import { constants, open, opendir, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import { join } from 'node:path';

import { digestAlgorithm, digestHex, parseDigest } from '../oci/digest.ts';
import type { Digest } from '../oci/digest.ts';
import { StoreUnavailableError } from './store.ts';
import type { BlobInfo, OpenBlob, StoreCallOptions } from './store.ts';

const algorithms = ['sha256', 'sha512'] as const;

/**
 * The files `<root>/blobs/<algorithm>/<hex>`, which containerd's content store and an OCI image
 * layout have in common. Reads only.
 *
 * Every method throws a StoreUnavailableError when the root is missing or a file cannot be looked
 * at, as opposed to not being there.
 */
export class BlobFiles {
  readonly #root: string;

  /** @param root the directory that contains `blobs` */
  constructor(root: string) {
    this.#root = root;
  }

  /** Where a blob is, or would be. */
  pathOf(digest: Digest): string {
    return join(this.#root, 'blobs', digestAlgorithm(digest), digestHex(digest));
  }

  /** @returns undefined when there is no such file */
  async stat(digest: Digest): Promise<BlobInfo | undefined> {
    const stats = await this.#unlessMissing(digest, (path) => stat(path, { bigint: true }));
    return stats?.isFile() === true ? describe(digest, stats) : undefined;
  }

  /** @returns undefined when there is no such file */
  async open(digest: Digest): Promise<OpenBlob | undefined> {
    // A pipe with a blob's name must not make the opening wait for a writer.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const handle = await this.#unlessMissing(digest, (path) => open(path, flags));
    if (handle === undefined) return undefined;
    try {
      const stats = await handle.stat({ bigint: true });
      if (stats.isFile()) return new FileBlob(describe(digest, stats), handle);
    } catch (error) {
      await handle.close();
      throw unavailable(`Cannot read ${digest}`, error);
    }
    await handle.close();
    return undefined;
  }

  /** Every blob file. What has no digest for a name is passed over. */
  async *list(options: StoreCallOptions = {}): AsyncGenerator<BlobInfo> {
    await this.#requireRoot();
    for (const algorithm of algorithms) {
      for await (const name of fileNames(join(this.#root, 'blobs', algorithm))) {
        options.signal?.throwIfAborted();
        const digest = parseDigest(`${algorithm}:${name}`);
        const info = digest.ok ? await this.stat(digest.value) : undefined;
        if (info !== undefined) yield info;
      }
    }
  }

  async #unlessMissing<T>(
    digest: Digest,
    act: (path: string) => Promise<T>,
  ): Promise<T | undefined> {
    try {
      return await act(this.pathOf(digest));
    } catch (error) {
      if (!isMissing(error)) throw unavailable(`Cannot look at ${digest}`, error);
    }
    // Without its root every blob is missing: that is no statement about any of them.
    await this.#requireRoot();
    return undefined;
  }

  async #requireRoot(): Promise<void> {
    try {
      await stat(this.#root);
    } catch (error) {
      throw unavailable(`Cannot look at ${this.#root}`, error);
    }
  }
}

/** Whether an error of node:fs says that there is nothing at a path. */
export function isMissing(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** Wraps what the file system answered. */
function unavailable(action: string, cause: unknown): StoreUnavailableError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new StoreUnavailableError(`${action}: ${reason}`, { cause });
}

async function* fileNames(path: string): AsyncGenerator<string> {
  try {
    for await (const entry of await opendir(path, { bufferSize: 256 })) yield entry.name;
  } catch (error) {
    // No blob of this algorithm has been written yet.
    if (!isMissing(error)) throw unavailable(`Cannot list ${path}`, error);
  }
}

function describe(digest: Digest, stats: BigIntStats): BlobInfo {
  const { dev, ino, size, ctimeNs, mtimeNs } = stats;
  return {
    digest,
    sizeBytes: Number(size),
    fingerprint: [dev, ino, size, ctimeNs, mtimeNs].map((part) => part.toString(36)).join('-'),
  };
}

class FileBlob implements OpenBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly fingerprint: string;
  readonly #handle: FileHandle;
  #closing: Promise<void> | undefined;

  constructor(info: BlobInfo, handle: FileHandle) {
    this.digest = info.digest;
    this.sizeBytes = info.sizeBytes;
    this.fingerprint = info.fingerprint;
    this.#handle = handle;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    if (this.#closing !== undefined) {
      throw new Error(`Cannot read ${this.digest}: it is closed`);
    }
    const wanted = Math.min(target.byteLength, this.sizeBytes - position);
    let filled = 0;
    while (filled < wanted) {
      const { bytesRead } = await this.#handle.read(
        target,
        filled,
        wanted - filled,
        position + filled,
      );
      if (bytesRead === 0) {
        throw new Error(`Cannot read ${this.digest}: the file was cut at ${position + filled}`);
      }
      filled += bytesRead;
    }
    return filled;
  }

  close(): Promise<void> {
    this.#closing ??= this.#handle.close();
    return this.#closing;
  }
}
