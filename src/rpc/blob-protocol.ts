import { create, fromBinary } from '@bufbuild/protobuf';
import { sizeDelimitedEncode, sizeDelimitedPeek } from '@bufbuild/protobuf/wire';
import {
  BlobAnswerSchema,
  ReadRequestSchema,
  type BlobAnswer,
  type ReadRequest,
} from './gen/salvor/agent/v1/agent_pb.ts';
import { READ_FRAME_HEADROOM_BYTES } from './read-frame.ts';

/** What a client names in TLS (ALPN) to read blobs: BlobAnswer in proto/salvor/agent/v1/agent.proto. */
export const BLOB_PROTOCOL = 'salvor-blob/1';

/** A request or an answer is never longer, in bytes. */
export const MAX_BLOB_MESSAGE_BYTES = 4096;

/** A message that was taken from the beginning of some bytes. */
export interface TakenMessage<T> {
  readonly message: T;
  readonly rest: Buffer;
}

/** @returns what a client sends to read a part of a blob */
export function encodeBlobRequest(request: ReadRequest): Buffer {
  return Buffer.from(sizeDelimitedEncode(ReadRequestSchema, request));
}

/** @returns what an agent sends where no bytes follow; the message is cut where it is too long */
export function encodeBlobFailure(failure: { code: number; message: string }): Buffer {
  const message = failure.message.slice(0, MAX_BLOB_MESSAGE_BYTES / 4);
  const answer = create(BlobAnswerSchema, { code: failure.code, message });
  return Buffer.from(sizeDelimitedEncode(BlobAnswerSchema, answer));
}

/**
 * Turns blob bytes into what goes over the connection, in place: before the first of them comes a
 * BlobAnswer, in the headroom.
 *
 * @param buffer starts with {@link READ_FRAME_HEADROOM_BYTES} of room; the data follows
 * @param dataBytes how many bytes of data follow
 * @param first what only the first piece says
 * @returns a view of `buffer`
 */
export function encodeBlobPiece(
  buffer: Buffer,
  dataBytes: number,
  first?: { readonly sizeBytes: number; readonly verified: boolean },
): Buffer {
  const end = READ_FRAME_HEADROOM_BYTES + dataBytes;
  if (first === undefined) return buffer.subarray(READ_FRAME_HEADROOM_BYTES, end);
  const { sizeBytes, verified } = first;
  const answer = create(BlobAnswerSchema, { sizeBytes: BigInt(sizeBytes), verified });
  const head = sizeDelimitedEncode(BlobAnswerSchema, answer);
  const start = READ_FRAME_HEADROOM_BYTES - head.length;
  buffer.set(head, start);
  return buffer.subarray(start, end);
}

/**
 * @returns undefined when the request is not there in full
 * @throws when it is none
 */
export function takeBlobRequest(bytes: Buffer): TakenMessage<ReadRequest> | undefined {
  return take(bytes, (body) => fromBinary(ReadRequestSchema, body));
}

/**
 * @returns undefined when the answer is not there in full
 * @throws when it is none
 */
export function takeBlobAnswer(bytes: Buffer): TakenMessage<BlobAnswer> | undefined {
  return take(bytes, (body) => fromBinary(BlobAnswerSchema, body));
}

function take<T>(bytes: Buffer, decode: (body: Uint8Array) => T): TakenMessage<T> | undefined {
  const length = sizeDelimitedPeek(bytes);
  if (length.eof) return undefined;
  const { offset, size } = length;
  if (size > MAX_BLOB_MESSAGE_BYTES) {
    throw new Error(`Cannot decode a message for a blob: it would have ${size} bytes`);
  }
  if (bytes.length < offset + size) return undefined;
  const message = decode(bytes.subarray(offset, offset + size));
  return { message, rest: bytes.subarray(offset + size) };
}
