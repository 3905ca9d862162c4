import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { ByteRange } from '../../oci/byte-range.ts';
import { DigestVerifier } from '../../oci/verifier.ts';
import type { ClientPatience, ClientWait } from '../../http/client-wait.ts';
import { readInto } from '../read-blob.ts';
import type { OpenBlob } from '../store.ts';

/** How a body was sent. */
export type BodyEnd = 'complete' | 'cut' | 'wrong_bytes' | 'client_gone' | 'client_stalled';

/** A part of a blob that is to be sent. Whoever sends it closes the blob. */
export interface BlobBody {
  readonly blob: OpenBlob;
  /** Whether its bytes are known to be those of its digest. */
  readonly verified: boolean;
  readonly window: ByteRange;
}

/**
 * Sends a part of a blob at the pace of the client: while one buffer is on its way the other is
 * filled, and that is all that is ever held. A whole blob that nobody has hashed yet is hashed as
 * it passes; where it is wrong, its last bytes are not sent and the connection ends with a reset,
 * so that containerd does not resume.
 */
export async function sendBlobBody(
  response: ServerResponse,
  body: BlobBody,
  options: ClientPatience & { readonly chunkBytes: number },
): Promise<{ readonly end: BodyEnd; readonly bytes: number; readonly error?: unknown }> {
  const { blob, verified, window } = body;
  const { signal } = options;
  const isWhole = window.start === 0 && window.end === blob.sizeBytes - 1;
  const verifier = isWhole && !verified ? new DigestVerifier(blob.digest) : undefined;
  const newBuffer = (): Buffer =>
    Buffer.allocUnsafeSlow(Math.min(options.chunkBytes, window.end - window.start + 1));
  let [filling, sending] = [newBuffer(), newBuffer()];
  let written: Promise<ClientWait> = Promise.resolve('done');
  let bytes = 0;
  try {
    for (let position = window.start; position <= window.end; position += filling.length) {
      [filling, sending] = [sending, filling];
      const part = filling.subarray(0, Math.min(filling.length, window.end - position + 1));
      const count = await readInto(blob, part, { position, signal });
      if (count < part.length) throw new Error(`the file ends at ${position + count}`);
      verifier?.update(part);
      const taken = await written;
      if (taken !== 'done') return { end: taken, bytes };
      if (position + part.length > window.end && verifier?.matches() === false) {
        reset(response);
        return { end: 'wrong_bytes', bytes };
      }
      written = writeChunk(response, part, options);
      bytes += part.length;
    }
    const taken = await written;
    if (taken !== 'done') return { end: taken, bytes };
    response.end();
    return { end: 'complete', bytes };
  } catch (error) {
    // Its buffer is still in use; it ends by itself, or with the connection.
    void written;
    response.destroy();
    return signal.aborted ? { end: 'client_gone', bytes } : { end: 'cut', bytes, error };
  }
}

/** Waits until a chunk has left this process; a client that does not take it is let go. */
async function writeChunk(
  response: ServerResponse,
  chunk: Buffer,
  { clientStallMs, signal }: ClientPatience,
): Promise<ClientWait> {
  if (signal.aborted) return 'client_gone';
  const { promise, resolve } = Promise.withResolvers<ClientWait>();
  const onGone = (): void => resolve('client_gone');
  const timer = setTimeout(() => resolve('client_stalled'), clientStallMs);
  signal.addEventListener('abort', onGone, { once: true });
  response.write(chunk, (error) => resolve(error ? 'client_gone' : 'done'));
  const taken = await promise;
  clearTimeout(timer);
  signal.removeEventListener('abort', onGone);
  if (taken !== 'done') response.destroy();
  return taken;
}

/** Below TLS, which has no reset of its own. */
function reset(response: ServerResponse): void {
  const raw = (response.socket as unknown as { _parent?: Socket } | null)?._parent;
  if (raw === undefined) response.destroy();
  else raw.resetAndDestroy();
}
