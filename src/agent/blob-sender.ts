import { status } from '@grpc/grpc-js';
import { READ_FRAME_HEADROOM_BYTES, type encodeReadFrame } from '../rpc/read-frame.ts';
import { readInto } from './read-blob.ts';
import { RpcFailure } from './rpc-failure.ts';
import type { OpenBlob } from './store.ts';

/** Where the bytes of a blob go, and what they look like there. */
export interface FrameSink {
  readonly encode: typeof encodeReadFrame;
  write(frame: Buffer, onWritten: (error?: Error | null) => void): void;
}

/** A part of a blob, as somebody asked for it. */
export interface BlobPart {
  readonly offsetBytes: number;
  /** Zero: to the end. */
  readonly lengthBytes: number;
}

/** When to give a receiver up. */
export interface WriteLimits {
  /** For one message to be taken, milliseconds. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

/**
 * Sends a part of a blob in frames, at the pace of the receiver: while one buffer is on its way,
 * the other is filled, and that is all that is ever held.
 *
 * @throws RpcFailure when the part lies outside of the blob, the file ends too early, or the
 *   receiver has gone or takes nothing
 */
export async function sendBlob(
  sink: FrameSink,
  source: { readonly blob: OpenBlob; readonly verified: boolean },
  options: BlobPart & WriteLimits & { readonly chunkBytes: number },
): Promise<number> {
  const { blob, verified } = source;
  if (options.offsetBytes > blob.sizeBytes) {
    throw new RpcFailure(
      status.OUT_OF_RANGE,
      `offset ${options.offsetBytes} lies behind the end, ${blob.sizeBytes}`,
    );
  }
  const end =
    options.lengthBytes === 0
      ? blob.sizeBytes
      : Math.min(blob.sizeBytes, options.offsetBytes + options.lengthBytes);
  const first = { sizeBytes: blob.sizeBytes, verified };
  const newBuffer = (): Buffer =>
    Buffer.allocUnsafeSlow(
      READ_FRAME_HEADROOM_BYTES + Math.min(options.chunkBytes, end - options.offsetBytes),
    );
  let [filling, sending] = [newBuffer(), newBuffer()];
  let position = options.offsetBytes;
  let isFirst = true;
  let written: Promise<void> = Promise.resolve();
  while (isFirst || position < end) {
    const wanted = Math.min(options.chunkBytes, end - position);
    await fill(blob, filling, { position, wanted });
    await written;
    [filling, sending] = [sending, filling];
    const frame = sink.encode(sending, wanted, isFirst ? first : undefined);
    written = writeTo(sink, frame, options);
    // The loop may fail before it comes to wait for this write.
    written.catch(() => undefined);
    position += wanted;
    isFirst = false;
  }
  await written;
  return position - options.offsetBytes;
}

async function fill(
  blob: OpenBlob,
  buffer: Buffer,
  { position, wanted }: { readonly position: number; readonly wanted: number },
): Promise<void> {
  const target = buffer.subarray(READ_FRAME_HEADROOM_BYTES, READ_FRAME_HEADROOM_BYTES + wanted);
  const filled = await readInto(blob, target, { position });
  if (filled === wanted) return;
  throw new RpcFailure(status.DATA_LOSS, `the file ends at ${position + filled}`);
}

/**
 * Writes one message and waits until the call takes more.
 *
 * @throws RpcFailure when the reader has gone, or does not take it in time
 */
export function writeTo<T>(
  call: { write(message: T, onWritten: (error?: Error | null) => void): unknown },
  message: T,
  limits: WriteLimits,
): Promise<void> {
  const { signal, stallMs } = limits;
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  // grpc-js drops the callback of a write to a cancelled call.
  const abort = (): void => {
    const reason: unknown = signal.reason;
    reject(
      reason instanceof RpcFailure
        ? reason
        : new RpcFailure(status.CANCELLED, 'cancelled by the reader'),
    );
  };
  if (signal.aborted) {
    abort();
    return promise;
  }
  // A reader that is there and takes nothing would keep its place for ever.
  const timer = setTimeout(() => {
    reject(new RpcFailure(status.ABORTED, `the reader took nothing for ${stallMs} ms`));
  }, stallMs);
  signal.addEventListener('abort', abort, { once: true });
  call.write(message, (error) => {
    if (error) reject(error);
    else resolve(undefined);
  });
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  });
}
