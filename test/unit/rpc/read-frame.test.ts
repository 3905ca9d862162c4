import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReadResponseSchema } from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import {
  READ_FRAME_HEADROOM_BYTES,
  decodeReadFrame,
  encodeReadFrame,
} from '../../../src/rpc/read-frame.ts';

const data = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes));
const size = fc.maxSafeNat();

function encode(
  bytes: Buffer,
  first?: { readonly sizeBytes: number; readonly verified: boolean },
): Buffer {
  const buffer = Buffer.alloc(READ_FRAME_HEADROOM_BYTES + bytes.length, 0xee);
  bytes.copy(buffer, READ_FRAME_HEADROOM_BYTES);
  return encodeReadFrame(buffer, bytes.length, first);
}

describe('encodeReadFrame', () => {
  it('encodeReadFrame writes what the generated code reads', () => {
    fc.assert(
      fc.property(data, size, fc.boolean(), fc.boolean(), (bytes, sizeBytes, verified, isFirst) => {
        const encoded = encode(bytes, isFirst ? { sizeBytes, verified } : undefined);
        const message = fromBinary(ReadResponseSchema, encoded);
        expect(Buffer.from(message.data).equals(bytes)).toBe(true);
        expect(message.sizeBytes).toBe(isFirst ? BigInt(sizeBytes) : 0n);
        expect(message.verified).toBe(isFirst && verified);
      }),
    );
  });

  it('encodeReadFrame has room for the largest numbers there are', () => {
    const first = { sizeBytes: Number.MAX_SAFE_INTEGER, verified: true };
    expect(decodeReadFrame(encode(Buffer.from('x'), first))).toEqual({
      ...first,
      data: Buffer.from('x'),
    });
    // The longest length of data that a call could carry.
    const head = encodeReadFrame(Buffer.alloc(READ_FRAME_HEADROOM_BYTES), 0xffff_ffff, first);
    expect(head.length).toBeLessThanOrEqual(READ_FRAME_HEADROOM_BYTES);
  });

  it('encodeReadFrame copies no byte of the data', () => {
    const buffer = Buffer.alloc(READ_FRAME_HEADROOM_BYTES + 8);
    const encoded = encodeReadFrame(buffer, 8, { sizeBytes: 8, verified: false });
    buffer.write('ABCDEFGH', READ_FRAME_HEADROOM_BYTES);
    expect(decodeReadFrame(encoded).data.toString()).toBe('ABCDEFGH');
  });

  it('encodeReadFrame leaves the data out that lies behind its length', () => {
    const buffer = Buffer.alloc(READ_FRAME_HEADROOM_BYTES + 8);
    buffer.write('ABCDEFGH', READ_FRAME_HEADROOM_BYTES);
    expect(decodeReadFrame(encodeReadFrame(buffer, 3)).data.toString()).toBe('ABC');
  });
});

describe('decodeReadFrame', () => {
  it('decodeReadFrame reads what the generated code writes', () => {
    fc.assert(
      fc.property(data, size, fc.boolean(), (bytes, sizeBytes, verified) => {
        const message = create(ReadResponseSchema, {
          data: bytes,
          sizeBytes: BigInt(sizeBytes),
          verified,
        });
        const frame = decodeReadFrame(Buffer.from(toBinary(ReadResponseSchema, message)));
        expect(frame.data.equals(bytes)).toBe(true);
        expect(frame.sizeBytes ?? 0).toBe(sizeBytes);
        expect(frame.verified ?? false).toBe(verified);
      }),
    );
  });

  it('decodeReadFrame agrees with the generated code on fields in any order and number', () => {
    const varint = (value: number): number[] =>
      value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
    const field = fc.oneof(
      fc.nat(0xffffff).map((value) => [0x08, ...varint(value)]),
      fc.uint8Array({ maxLength: 200 }).map((bytes) => [0x12, ...varint(bytes.length), ...bytes]),
      fc.nat(300).map((value) => [0x18, ...varint(value)]),
      // Of a newer version: a number, and bytes.
      fc.nat(0xffff).map((value) => [0x78, ...varint(value)]),
      fc.uint8Array({ maxLength: 9 }).map((bytes) => [0x7a, bytes.length, ...bytes]),
    );
    fc.assert(
      fc.property(fc.array(field, { maxLength: 6 }), (fields) => {
        const encoded = Buffer.from(fields.flat());
        const expected = fromBinary(ReadResponseSchema, encoded);
        const frame = decodeReadFrame(encoded);
        expect(frame.data.equals(Buffer.from(expected.data))).toBe(true);
        expect(frame.sizeBytes ?? 0).toBe(Number(expected.sizeBytes));
        expect(frame.verified ?? false).toBe(expected.verified);
      }),
    );
  });

  it('decodeReadFrame gives views of the bytes that came', () => {
    const encoded = encode(Buffer.from('view'));
    const frame = decodeReadFrame(encoded);
    expect(frame.data.buffer).toBe(encoded.buffer);
  });

  it.each([
    ['a length beyond the end', [0x12, 0x05, 1, 2]],
    ['a length that ends in the middle', [0x12, 0x80]],
    ['a number without an end', [0x08, ...Array.from({ length: 12 }, () => 0xff)]],
    ['a tag without a value', [0x08]],
    ['a broken unknown field', [0x7a, 0x09, 1]],
    ['a group', [0x0b]],
  ])('decodeReadFrame refuses %s', (_, bytes) => {
    expect(() => decodeReadFrame(Buffer.from(bytes))).toThrow();
  });

  it('decodeReadFrame reads or refuses any bytes, and never beyond their end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const encoded = Buffer.from(bytes);
        let frame;
        try {
          frame = decodeReadFrame(encoded);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
          return;
        }
        expect(frame.data.length).toBeLessThanOrEqual(encoded.length);
      }),
      { numRuns: 1000 },
    );
  });
});
