import fc from 'fast-check';
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import {
  encodeBlobFailure,
  encodeBlobPiece,
  encodeBlobRequest,
  MAX_BLOB_MESSAGE_BYTES,
  takeBlobAnswer,
  takeBlobRequest,
} from '../../../src/rpc/blob-protocol.ts';
import { ReadRequestSchema } from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { READ_FRAME_HEADROOM_BYTES } from '../../../src/rpc/read-frame.ts';

describe('the messages of a connection for blobs', () => {
  it('takes a request from whatever follows it, and from nothing less', () => {
    const fields = fc.record({
      digest: fc.string({ maxLength: 200 }),
      offsetBytes: fc.bigInt(0n, 2n ** 63n - 1n),
      lengthBytes: fc.bigInt(0n, 2n ** 63n - 1n),
    });
    fc.assert(
      fc.property(fields, fc.uint8Array({ maxLength: 50 }), (request, rest) => {
        const encoded = encodeBlobRequest(create(ReadRequestSchema, request));
        const taken = takeBlobRequest(Buffer.concat([encoded, rest]));
        expect(taken?.message).toMatchObject(request);
        expect(taken?.rest).toEqual(Buffer.from(rest));
        for (let length = 0; length < encoded.length; length += 1) {
          expect(takeBlobRequest(encoded.subarray(0, length))).toBeUndefined();
        }
      }),
    );
  });

  it('puts an answer in front of the first bytes, whatever the size, and nothing before others', () => {
    const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
    fc.assert(
      fc.property(size, fc.boolean(), fc.uint8Array(), (sizeBytes, verified, data) => {
        const buffer = Buffer.concat([Buffer.alloc(READ_FRAME_HEADROOM_BYTES), data]);
        expect(encodeBlobPiece(buffer, data.length)).toEqual(Buffer.from(data));
        const first = encodeBlobPiece(buffer, data.length, { sizeBytes, verified });
        const taken = takeBlobAnswer(first);
        expect(taken?.message).toMatchObject({ sizeBytes: BigInt(sizeBytes), verified, code: 0 });
        expect(taken?.rest).toEqual(Buffer.from(data));
      }),
    );
  });

  it('keeps a failure short enough to be taken', () => {
    const failure = { code: 5, message: '\u{1F4A5}'.repeat(5000) };
    const taken = takeBlobAnswer(encodeBlobFailure(failure));
    expect(taken?.message.code).toBe(5);
    expect(taken?.message.message).toMatch(/^(\u{1F4A5})+$/u);
  });

  it('waits for no more than a message may have', () => {
    const tooLong = Buffer.from([0x81, 0x20]);
    expect(MAX_BLOB_MESSAGE_BYTES).toBe(4096);
    expect(() => takeBlobAnswer(tooLong)).toThrow('it would have 4097 bytes');
    expect(() => takeBlobRequest(Buffer.alloc(10, 0xff))).toThrow();
  });
});
