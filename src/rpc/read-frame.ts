import { fromBinary } from '@bufbuild/protobuf';
import { ReadResponseSchema } from './gen/salvor/agent/v1/agent_pb.ts';
import type { MessageCodec } from './service-definition.ts';

/** One message of a Read stream, its bytes not copied. */
export interface ReadFrame {
  readonly data: Buffer;
  /** Of the whole blob; only in the first frame of a stream. */
  readonly sizeBytes?: number;
  /** Only in the first frame of a stream. */
  readonly verified?: boolean;
}

/** Room that {@link encodeReadFrame} needs in front of the data, in bytes. */
export const READ_FRAME_HEADROOM_BYTES = 32;

const TAG_SIZE = 0x08;
const TAG_DATA = 0x12;
const TAG_VERIFIED = 0x18;

/**
 * Turns blob bytes into an encoded ReadResponse (proto/salvor/agent/v1/agent.proto) in place: the
 * field headers go into the headroom, so that no byte of the blob is copied.
 *
 * @param buffer starts with {@link READ_FRAME_HEADROOM_BYTES} of room; the data follows
 * @param dataBytes how many bytes of data follow
 * @param first what only the first frame says
 * @returns the encoded message, a view of `buffer`
 */
export function encodeReadFrame(
  buffer: Buffer,
  dataBytes: number,
  first?: { readonly sizeBytes: number; readonly verified: boolean },
): Buffer {
  const header: number[] = [];
  if (first !== undefined) {
    header.push(TAG_SIZE);
    pushVarint(header, first.sizeBytes);
    if (first.verified) header.push(TAG_VERIFIED, 1);
  }
  header.push(TAG_DATA);
  pushVarint(header, dataBytes);
  const start = READ_FRAME_HEADROOM_BYTES - header.length;
  for (const [index, byte] of header.entries()) buffer[start + index] = byte;
  return buffer.subarray(start, READ_FRAME_HEADROOM_BYTES + dataBytes);
}

/**
 * Reads an encoded ReadResponse; `data` is a view of `bytes`.
 *
 * @throws when the bytes are not a ReadResponse
 */
export function decodeReadFrame(bytes: Buffer): ReadFrame {
  let position = 0;
  let sizeBytes: number | undefined;
  let verified: boolean | undefined;
  let data: Buffer = bytes.subarray(0, 0);
  while (position < bytes.length) {
    const tag = bytes[position];
    if (tag !== TAG_SIZE && tag !== TAG_DATA && tag !== TAG_VERIFIED) return decodeSlowly(bytes);
    const [value, next] = readVarint(bytes, position + 1);
    position = next;
    if (tag === TAG_SIZE) sizeBytes = value;
    else if (tag === TAG_VERIFIED) verified = value !== 0;
    else {
      if (position + value > bytes.length) throw new Error('Cannot decode a read frame: cut short');
      data = bytes.subarray(position, position + value);
      position += value;
    }
  }
  return frame(data, sizeBytes, verified);
}

/** The codec of Read's answers: frames encoded by the sender, views for the receiver. */
export const readFrameCodec: MessageCodec<never> = {
  serialize: (encoded: Buffer) => encoded,
  deserialize: decodeReadFrame as (bytes: Buffer) => never,
};

// A newer version may have added fields; the generated decoder skips what it does not know.
function decodeSlowly(bytes: Buffer): ReadFrame {
  const message = fromBinary(ReadResponseSchema, bytes);
  const size = message.sizeBytes === 0n ? undefined : Number(message.sizeBytes);
  return frame(Buffer.from(message.data), size, message.verified);
}

function frame(data: Buffer, sizeBytes?: number, verified?: boolean): ReadFrame {
  return {
    data,
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(verified === undefined ? {} : { verified }),
  };
}

function pushVarint(target: number[], value: number): void {
  // Division, not shifts: sizes go beyond 32 bits.
  while (value >= 0x80) {
    target.push((value % 0x80) + 0x80);
    value = Math.floor(value / 0x80);
  }
  target.push(value);
}

function readVarint(bytes: Buffer, position: number): [value: number, next: number] {
  let value = 0;
  let scale = 1;
  for (let index = position; index < position + 8; index += 1) {
    const byte = bytes[index];
    if (byte === undefined) break;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return [value, index + 1];
    scale *= 0x80;
  }
  throw new Error('Cannot decode a read frame: bad number');
}
