import { randomBytes } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sendBlob, type FrameSink } from '../../../src/agent/blob-sender.ts';
import type { OpenBlob } from '../../../src/agent/store.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { decodeReadFrame, encodeReadFrame } from '../../../src/rpc/read-frame.ts';

const live = new AbortController().signal;

function blobOf(bytes: Buffer, options: { maxRead?: number; endsAt?: number } = {}): OpenBlob {
  const { maxRead = Number.POSITIVE_INFINITY, endsAt = bytes.length } = options;
  return {
    digest: digestOf(bytes),
    sizeBytes: bytes.length,
    fingerprint: '1',
    read: async (target, position) => {
      const count = Math.min(target.length, maxRead, Math.max(0, endsAt - position));
      target.set(bytes.subarray(position, position + count));
      return count;
    },
    close: async () => undefined,
  };
}

const stallMs = 60_000;

/** A call's writable side: each write ends when the test says so, or at once. */
class Sink implements FrameSink {
  readonly encode = encodeReadFrame;
  readonly frames: Buffer[] = [];
  unconfirmed: (() => void)[] = [];
  readonly isPaced: boolean;

  constructor(isPaced = false) {
    this.isPaced = isPaced;
  }

  readonly write = ((frame: Buffer, done: () => void) => {
    // Copied like the kernel would: the sender uses its buffers again.
    this.frames.push(Buffer.from(frame));
    if (this.isPaced) this.unconfirmed.push(done);
    else done();
    return true;
  }) as FrameSink['write'];

  get bytes(): Buffer {
    return Buffer.concat(this.frames.map((frame) => decodeReadFrame(frame).data));
  }
}

const turns = async (): Promise<void> => {
  for (let n = 0; n < 20; n += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe('sendBlob', () => {
  it('sendBlob sends any part of any blob in frames of any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 300 }),
        fc.nat(300),
        fc.nat(300),
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 50 }),
        async (content, offset, lengthBytes, chunkBytes, maxRead) => {
          const bytes = Buffer.from(content);
          const offsetBytes = Math.min(offset, bytes.length);
          const sink = new Sink();
          const part = { offsetBytes, lengthBytes, chunkBytes, stallMs, signal: live };
          const source = { blob: blobOf(bytes, { maxRead }), verified: true };
          const sent = await sendBlob(sink, source, part);
          const end = lengthBytes === 0 ? bytes.length : offsetBytes + lengthBytes;
          const expected = bytes.subarray(offsetBytes, end);
          expect(sink.bytes.equals(expected)).toBe(true);
          expect(sent).toBe(expected.length);
          const [first, ...others] = sink.frames.map(decodeReadFrame);
          expect(first).toMatchObject({ sizeBytes: bytes.length, verified: true });
          for (const frame of others) {
            expect(Object.keys(frame)).toEqual(['data']);
            expect(frame.data.length).toBeLessThanOrEqual(chunkBytes);
          }
        },
      ),
    );
  });

  it('sendBlob has at most one frame on its way and fills no more than one ahead', async () => {
    const bytes = randomBytes(1000);
    let reads = 0;
    const blob = blobOf(bytes);
    const counting: OpenBlob = {
      ...blob,
      read: (target, position) => {
        reads += 1;
        return blob.read(target, position);
      },
    };
    const sink = new Sink(true);
    const part = { offsetBytes: 0, lengthBytes: 0, chunkBytes: 100, stallMs, signal: live };
    const sending = sendBlob(sink, { blob: counting, verified: false }, part);
    for (let frame = 1; frame <= 10; frame += 1) {
      await turns();
      expect(sink.frames.length).toBe(frame);
      expect(reads).toBe(Math.min(10, frame + 1));
      sink.unconfirmed.shift()?.();
    }
    await sending;
    expect(sink.bytes.equals(bytes)).toBe(true);
  });

  it('sendBlob refuses an offset behind the end, and gives nothing at the end', async () => {
    const source = { blob: blobOf(Buffer.from('abc')), verified: false };
    const part = { lengthBytes: 0, chunkBytes: 10, stallMs, signal: live };
    await expect(sendBlob(new Sink(), source, { ...part, offsetBytes: 4 })).rejects.toMatchObject({
      code: status.OUT_OF_RANGE,
    });
    const sink = new Sink();
    expect(await sendBlob(sink, source, { ...part, offsetBytes: 3 })).toBe(0);
    expect(decodeReadFrame(sink.frames[0]!)).toEqual({ sizeBytes: 3, data: Buffer.alloc(0) });
  });

  it('sendBlob sends no byte that the file does not have', async () => {
    const source = { blob: blobOf(randomBytes(300), { endsAt: 250 }), verified: true };
    const sink = new Sink();
    const part = { offsetBytes: 0, lengthBytes: 0, chunkBytes: 100, stallMs, signal: live };
    await expect(sendBlob(sink, source, part)).rejects.toMatchObject({ code: status.DATA_LOSS });
    expect(sink.bytes.length).toBe(200);
  });

  it('sendBlob ends when the reader leaves, although nobody confirms its write', async () => {
    const leaving = new AbortController();
    const sink = new Sink(true);
    const source = { blob: blobOf(randomBytes(300)), verified: true };
    const part = {
      offsetBytes: 0,
      lengthBytes: 0,
      chunkBytes: 100,
      stallMs,
      signal: leaving.signal,
    };
    const sending = sendBlob(sink, source, part);
    await turns();
    leaving.abort();
    await expect(sending).rejects.toMatchObject({ code: status.CANCELLED });
    expect(sink.frames.length).toBe(1);
  });

  it('sendBlob gives up a reader that takes nothing, however often it took something', async () => {
    const sink = new Sink(true);
    const source = { blob: blobOf(randomBytes(300)), verified: true };
    const part = { offsetBytes: 0, lengthBytes: 0, chunkBytes: 100, stallMs: 50, signal: live };
    const sending = sendBlob(sink, source, part);
    await turns();
    sink.unconfirmed.shift()?.();
    await expect(sending).rejects.toMatchObject({ code: status.ABORTED });
    expect(sink.frames.length).toBe(2);
  });

  it('sendBlob sends nothing to a reader that has left', async () => {
    const sink = new Sink();
    const source = { blob: blobOf(randomBytes(300)), verified: true };
    const part = {
      offsetBytes: 0,
      lengthBytes: 0,
      chunkBytes: 100,
      stallMs,
      signal: AbortSignal.abort(),
    };
    await expect(sendBlob(sink, source, part)).rejects.toMatchObject({ code: status.CANCELLED });
    expect(sink.frames).toEqual([]);
  });
});
