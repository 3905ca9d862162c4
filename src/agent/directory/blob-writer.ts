import { open, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

import type { Digest } from '../../oci/digest.ts';
import { DigestVerifier } from '../../oci/verifier.ts';

/** Receives one blob, in order. Whoever got it must end it with commit or abort. */
export interface BlobWriter {
  readonly digest: Digest;
  /**
   * Takes the next bytes.
   *
   * @throws when the blob outgrows what was announced or the store, when the disk fails, and after
   *   an abort. The writer is then ended and needs no abort.
   */
  write(chunk: Uint8Array): Promise<void>;
  /**
   * Makes the blob part of the store, all at once.
   *
   * @throws when the bytes are not those that the digest names, or not as many as announced. The
   *   writer is then ended and nothing is left of it.
   */
  commit(): Promise<void>;
  /** Throws away what was received. Harmless when the writer has ended. */
  abort(): Promise<void>;
}

export interface BlobFileWriterOptions {
  readonly digest: Digest;
  /** The announced size. */
  readonly sizeBytes?: number;
  readonly temporaryPath: string;
  readonly finalPath: string;
}

/** What the writer needs of its store. */
export interface BlobFileWriterDependencies {
  /** Makes room for more bytes. @throws when there cannot be enough */
  reserve(sizeBytes: number): Promise<void>;
  /** Gives the room of a writer back. */
  release(sizeBytes: number): void;
  /** Whether the blob has come into the store by another way meanwhile. */
  isHeld(): Promise<boolean>;
  /** Told when the file has its final name; from then on the room is the blob's. */
  committed(sizeBytes: number): Promise<void>;
  /** Told once, when the writer ends in whatever way. */
  ended(): void;
}

/** Writes into a temporary file, hashing on the way, and renames it in the end. */
export class BlobFileWriter implements BlobWriter {
  readonly digest: Digest;
  readonly #options: BlobFileWriterOptions;
  readonly #store: BlobFileWriterDependencies;
  readonly #handle: FileHandle;
  readonly #verifier: DigestVerifier;
  #reservedBytes = 0;
  #end: Promise<void> | undefined;

  private constructor(
    options: BlobFileWriterOptions,
    store: BlobFileWriterDependencies,
    handle: FileHandle,
  ) {
    this.digest = options.digest;
    this.#options = options;
    this.#store = store;
    this.#handle = handle;
    this.#verifier = new DigestVerifier(options.digest);
  }

  /** @throws when the temporary file cannot be made */
  static async create(
    options: BlobFileWriterOptions,
    store: BlobFileWriterDependencies,
  ): Promise<BlobFileWriter> {
    return new BlobFileWriter(options, store, await open(options.temporaryPath, 'wx'));
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#requireOpen();
    const position = this.#verifier.receivedBytes;
    const { sizeBytes } = this.#options;
    if (sizeBytes !== undefined && position + chunk.byteLength > sizeBytes) {
      await this.abort();
      throw new Error(`Cannot keep ${this.digest}: more than the announced ${sizeBytes} bytes`);
    }
    this.#verifier.update(chunk);
    try {
      await this.#store.reserve(chunk.byteLength);
      this.#reservedBytes += chunk.byteLength;
      this.#requireOpen();
      await this.#writeAll(chunk, position);
    } catch (error) {
      // An abort during the reservation found less to give back.
      if (this.#end !== undefined) this.#releaseAll();
      await this.abort();
      throw error;
    }
  }

  async commit(): Promise<void> {
    this.#requireOpen();
    const { sizeBytes, temporaryPath, finalPath } = this.#options;
    const { receivedBytes } = this.#verifier;
    if (sizeBytes !== undefined && receivedBytes !== sizeBytes) {
      await this.abort();
      throw new Error(
        `Cannot keep ${this.digest}: ${receivedBytes} of the announced ${sizeBytes} bytes came`,
      );
    }
    if (!this.#verifier.matches()) {
      await this.abort();
      throw new Error(`Cannot keep ${this.digest}: the bytes are not those that the digest names`);
    }
    // The same bytes under a new inode would have to be hashed again for nothing.
    if (await this.#store.isHeld()) {
      await this.abort();
      return;
    }
    this.#requireOpen();
    this.#end = this.#finish(async () => {
      await rename(temporaryPath, finalPath);
      const sizeBytes = this.#reservedBytes;
      this.#reservedBytes = 0;
      await this.#store.committed(sizeBytes);
    });
    await this.#end;
  }

  abort(): Promise<void> {
    this.#end ??= this.#finish(() => rm(this.#options.temporaryPath, { force: true }));
    return this.#end.catch(() => undefined);
  }

  async #finish(act: () => Promise<void>): Promise<void> {
    try {
      await this.#handle.close();
      await act();
    } catch (error) {
      await rm(this.#options.temporaryPath, { force: true });
      throw error;
    } finally {
      this.#releaseAll();
      this.#store.ended();
    }
  }

  #releaseAll(): void {
    this.#store.release(this.#reservedBytes);
    this.#reservedBytes = 0;
  }

  #requireOpen(): void {
    if (this.#end !== undefined) throw new Error(`Cannot write ${this.digest}: it has ended`);
  }

  async #writeAll(chunk: Uint8Array, position: number): Promise<void> {
    let written = 0;
    while (written < chunk.byteLength) {
      const { bytesWritten } = await this.#handle.write(
        chunk,
        written,
        chunk.byteLength - written,
        position + written,
      );
      written += bytesWritten;
    }
  }
}
