import type { ReadContentResponse } from '../../rpc/gen/containerd/services/content/v1/content_pb.ts';
import type { BlobInfo, OpenBlob } from '../store.ts';
import type { ContainerdClient } from './containerd-client.ts';
import type { PacedStream } from './paced-stream.ts';

/**
 * A blob read through containerd's socket. Reading on from where the last read ended stays on one
 * stream, for which containerd keeps the file open whatever its garbage collection does; going
 * elsewhere starts another and needs the blob to be there still.
 */
export class StreamedBlob implements OpenBlob {
  readonly digest: BlobInfo['digest'];
  readonly sizeBytes: number;
  readonly fingerprint: string;
  readonly #client: Pick<ContainerdClient, 'read'>;
  #stream: PacedStream<ReadContentResponse> | undefined;
  /** What was received and not yet read. */
  #rest: Uint8Array = new Uint8Array();
  /** Where in the blob `#rest` begins. */
  #positionBytes = 0;
  #lastRead: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(info: BlobInfo, client: Pick<ContainerdClient, 'read'>) {
    this.digest = info.digest;
    this.sizeBytes = info.sizeBytes;
    this.fingerprint = info.fingerprint;
    this.#client = client;
  }

  /**
   * Starts to read at the beginning, so that containerd has the file open when this resolves.
   *
   * @throws StoreUnavailableError, also when the blob is gone
   */
  static async open(info: BlobInfo, client: Pick<ContainerdClient, 'read'>): Promise<StreamedBlob> {
    const blob = new StreamedBlob(info, client);
    try {
      await blob.#seek(0);
      await blob.#receive();
    } catch (error) {
      await blob.close();
      throw error;
    }
    return blob;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    // One stream cannot be in two places: reads take turns.
    const read = this.#lastRead.then(() => this.#read(target, position));
    this.#lastRead = read.catch(() => undefined);
    return read;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#rest = new Uint8Array();
  }

  async #read(target: Uint8Array, position: number): Promise<number> {
    const wanted = Math.min(target.byteLength, this.sizeBytes - position);
    if (wanted <= 0) return 0;
    await this.#seek(position);
    let filled = 0;
    while (filled < wanted) {
      if (this.#rest.byteLength === 0 && !(await this.#receive())) {
        throw new Error(
          `Cannot read ${this.digest}: containerd's stream ended at ${this.#positionBytes}`,
        );
      }
      const part = this.#rest.subarray(0, wanted - filled);
      target.set(part, filled);
      filled += part.byteLength;
      this.#positionBytes += part.byteLength;
      this.#rest = this.#rest.subarray(part.byteLength);
    }
    return filled;
  }

  async #seek(position: number): Promise<void> {
    if (this.#closed) throw new Error(`Cannot read ${this.digest}: it is closed`);
    if (this.#stream !== undefined && position === this.#positionBytes) return;
    this.#stream?.cancel();
    this.#stream = this.#client.read(this.digest, position);
    this.#rest = new Uint8Array();
    this.#positionBytes = position;
  }

  /** @returns false at the end of the stream */
  async #receive(): Promise<boolean> {
    const next = await this.#stream?.next();
    if (this.#closed) throw new Error(`Cannot read ${this.digest}: it is closed`);
    if (next === undefined || next.done === true) return false;
    this.#rest = next.value.data;
    return true;
  }
}
