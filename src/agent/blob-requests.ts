import type { Socket } from 'node:net';
import { MAX_BLOB_MESSAGE_BYTES, takeBlobRequest } from '../rpc/blob-protocol.ts';
import type { ReadRequest } from '../rpc/gen/salvor/agent/v1/agent_pb.ts';

/** What a client may have said before it is answered, bytes. */
const MAX_AHEAD_BYTES = 2 * MAX_BLOB_MESSAGE_BYTES;

/** What a client asks for over a connection for blobs, one request after the other. */
export class BlobRequests {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #hasEnded = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    const finish = (): void => {
      this.#hasEnded = true;
      this.#wake?.();
    };
    socket.on('data', (bytes: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
      if (this.#bytes.length > MAX_AHEAD_BYTES) socket.destroy();
      this.#wake?.();
    });
    socket.once('end', finish);
    socket.once('close', finish);
  }

  /**
   * @param timeoutMs for all of the request to come
   * @returns undefined when the client has gone, or says nothing in time
   * @throws when it says something that is no request
   */
  async next({ timeoutMs }: { readonly timeoutMs: number }): Promise<ReadRequest | undefined> {
    let isLate = false as boolean;
    const timer = setTimeout(() => {
      isLate = true;
      this.#wake?.();
    }, timeoutMs);
    try {
      for (;;) {
        const taken = takeBlobRequest(this.#bytes);
        if (taken !== undefined) {
          this.#bytes = taken.rest;
          return taken.message;
        }
        if (isLate || this.#hasEnded || this.#socket.destroyed) return undefined;
        const { promise, resolve } = Promise.withResolvers<undefined>();
        this.#wake = () => resolve(undefined);
        await promise;
        this.#wake = undefined;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
