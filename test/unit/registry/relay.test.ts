import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import {
  Relay,
  WrongBytesError,
  type BlobTap,
  type NextSource,
} from '../../../src/registry/relay.ts';
import { SourceError, type OpenedBody } from '../../../src/registry/sources/source.ts';
import { FakeBody, inChunks } from './fake-body.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const STALL_MS = 5000;
const small = randomBytes(200 * KIB);
const big = randomBytes(2 * MIB + 777);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

interface Asked {
  readonly failed: string;
  readonly outcome: string;
  readonly start: number;
  readonly hashed: boolean;
}

/** Gives the next bodies in order and remembers what was asked for. */
function sequence(bodies: readonly OpenedBody[]): { next: NextSource; asked: Asked[] } {
  const rest = [...bodies];
  const asked: Asked[] = [];
  return {
    asked,
    next: async (failed, { outcome }, { start, hashed }) => {
      asked.push({ failed: failed.source, outcome, start, hashed });
      return rest.shift();
    },
  };
}

function relayOf(
  bytes: Buffer,
  bodies: readonly [OpenedBody, ...OpenedBody[]],
  options: { window?: { start: number; end: number }; tap?: BlobTap; claimed?: Buffer } = {},
) {
  const [first, ...others] = bodies;
  const { next, asked } = sequence(others);
  const relay = new Relay(
    {
      digest: digestOf(options.claimed ?? bytes),
      window: options.window ?? { start: 0, end: bytes.length - 1 },
      sizeBytes: bytes.length,
      stallMs: STALL_MS,
      maxIdleSwitches: 4,
    },
    { first, nextSource: next, tap: options.tap },
  );
  return { relay, asked };
}

/** What a client got: the bytes, and the error that ended them. */
async function read(relay: Relay): Promise<{ bytes: Buffer; error: unknown }> {
  const parts: Buffer[] = [];
  try {
    for await (const part of relay.chunks()) parts.push(part);
  } catch (error) {
    return { bytes: Buffer.concat(parts), error };
  }
  return { bytes: Buffer.concat(parts), error: undefined };
}

function recordingTap(): BlobTap & { readonly events: string[]; bytes: () => Buffer } {
  const events: string[] = [];
  const parts: Buffer[] = [];
  return {
    events,
    bytes: () => Buffer.concat(parts),
    write: async (chunk) => {
      if (events.length > 0) throw new Error(`write after ${events.join()}`);
      parts.push(Buffer.from(chunk));
    },
    commit: async () => void events.push('commit'),
    abort: async () => void events.push('abort'),
  };
}

function altered(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

function whole(bytes: Buffer, options: { source?: string; trusted?: boolean } = {}): FakeBody {
  return new FakeBody({ ...options, sizeBytes: bytes.length, steps: inChunks(bytes, 64 * KIB) });
}

describe('Relay of a whole blob', () => {
  it.each([
    ['small', small],
    ['big', big],
  ])('Relay gives a %s blob from one source exactly', async (_, bytes) => {
    const body = whole(bytes);
    const { relay } = relayOf(bytes, [body]);
    const got = await read(relay);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(bytes)).toBe(true);
    expect(relay.sources).toEqual(['upstream']);
    expect(relay.emittedBytes).toBe(bytes.length);
    expect(body.cancels).toBe(1);
  });

  it('Relay gives an empty blob, and none that is not empty', async () => {
    const empty = Buffer.alloc(0);
    expect(await read(relayOf(empty, [whole(empty)]).relay)).toEqual({
      bytes: empty,
      error: undefined,
    });
    const { relay } = relayOf(empty, [whole(empty)], { claimed: small });
    expect((await read(relay)).error).toMatchObject({ outcome: 'wrong_bytes' });
  });

  it.each([
    ['small', small],
    ['big', big],
  ])('Relay continues a %s blob at the byte where its source was cut', async (_, bytes) => {
    for (const cutAt of [0, 1, 64 * KIB, 100 * KIB + 3, bytes.length - 1]) {
      const first = new FakeBody({
        sizeBytes: bytes.length,
        steps: [...inChunks(bytes.subarray(0, cutAt), 10 * KIB), new Error('ECONNRESET')],
      });
      const second = new FakeBody({
        source: 'node/b',
        sizeBytes: bytes.length,
        start: cutAt,
        steps: inChunks(bytes.subarray(cutAt), 30 * KIB),
      });
      const { relay, asked } = relayOf(bytes, [first, second]);
      const got = await read(relay);
      expect(got.error).toBeUndefined();
      expect(got.bytes.equals(bytes)).toBe(true);
      expect(asked).toEqual([{ failed: 'upstream', outcome: 'cut', start: cutAt, hashed: true }]);
      expect(relay.sources).toEqual(['upstream', 'node/b']);
      expect([first.cancels > 0, second.cancels > 0]).toEqual([true, true]);
    }
  });

  it('Relay takes a source that ends early without an error for one that was cut', async () => {
    const first = new FakeBody({ sizeBytes: small.length, steps: [small.subarray(0, 5)] });
    const { relay, asked } = relayOf(small, [first, whole(small, { source: 'node/b' })]);
    expect((await read(relay)).bytes.equals(small)).toBe(true);
    expect(asked).toMatchObject([{ outcome: 'cut', start: 5 }]);
  });

  it('Relay discards what a source that restarts from zero repeats', async () => {
    const first = new FakeBody({
      sizeBytes: big.length,
      steps: [...inChunks(big.subarray(0, 1_100_000), 64 * KIB), new Error('cut')],
    });
    const { relay } = relayOf(big, [first, whole(big, { source: 'node/b' })]);
    expect((await read(relay)).bytes.equals(big)).toBe(true);
  });

  it('Relay leaves a source that starts behind the needed byte', async () => {
    const late = new FakeBody({ sizeBytes: small.length, start: 1, steps: [small.subarray(1)] });
    const { relay, asked } = relayOf(small, [late, whole(small, { source: 'node/b' })]);
    expect((await read(relay)).bytes.equals(small)).toBe(true);
    expect(asked).toMatchObject([{ outcome: 'wrong_range', start: 0 }]);
    expect(relay.sources).toEqual(['node/b']);
  });

  it('Relay changes a source that stalls', async () => {
    const first = new FakeBody({ sizeBytes: big.length });
    first.push(big.subarray(0, 70 * KIB));
    const second = new FakeBody({
      source: 'node/b',
      sizeBytes: big.length,
      start: 70 * KIB,
      steps: inChunks(big.subarray(70 * KIB), 64 * KIB),
    });
    const { relay, asked } = relayOf(big, [first, second]);
    const reading = read(relay);
    await vi.advanceTimersByTimeAsync(STALL_MS * 0.9);
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(STALL_MS * 0.3);
    expect((await reading).bytes.equals(big)).toBe(true);
    expect(asked).toMatchObject([{ outcome: 'stalled', start: 70 * KIB }]);
    expect(first.cancels).toBeGreaterThan(0);
  });

  it('Relay never shows the client wrong bytes of a small blob', async () => {
    const wrong = whole(altered(small), { source: 'node/a' });
    const { relay, asked } = relayOf(small, [wrong, whole(small, { source: 'node/b' })]);
    const got = await read(relay);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(small)).toBe(true);
    expect(asked).toEqual([{ failed: 'node/a', outcome: 'wrong_bytes', start: 0, hashed: true }]);
  });

  it('Relay gives nothing of a small blob that is wrong everywhere, and gives up', async () => {
    const wrong = altered(small);
    const bodies = Array.from({ length: 20 }, (_, n) => whole(wrong, { source: `node/${n}` }));
    const [first, ...others] = bodies;
    const { relay, asked } = relayOf(small, [first!, ...others]);
    const got = await read(relay);
    expect(got.bytes.length).toBe(0);
    expect(got.error).toBeInstanceOf(SourceError);
    expect(asked.length).toBeLessThan(10);
  });

  it('Relay gives up on sources that take turns in being cut and being wrong', async () => {
    const wrong = altered(small);
    const bodies = Array.from({ length: 40 }, (_, n) =>
      n % 2 === 0
        ? new FakeBody({
            source: `node/${n}`,
            sizeBytes: small.length,
            steps: [wrong.subarray(0, 150 * KIB)],
          })
        : whole(wrong, { source: `node/${n}` }),
    );
    const [first, ...others] = bodies;
    const { relay, asked } = relayOf(small, [first!, ...others]);
    const got = await read(relay);
    expect(got.bytes.length).toBe(0);
    expect(got.error).toMatchObject({ outcome: 'wrong_bytes' });
    expect(asked.length).toBeLessThan(15);
  });

  it('Relay ends a big blob of wrong bytes before its last piece', async () => {
    const wrong = whole(altered(big), { source: 'node/a' });
    const { relay, asked } = relayOf(big, [wrong, whole(big)]);
    const got = await read(relay);
    expect(got.error).toBeInstanceOf(WrongBytesError);
    expect(got.bytes.length).toBeLessThan(big.length);
    expect(got.bytes.length).toBe(relay.emittedBytes);
    expect(asked).toEqual([]);
  });

  it('Relay hashes over all sources: wrong bytes of the first spoil the last piece', async () => {
    const cutAt = 1_500_000;
    const first = new FakeBody({
      source: 'node/a',
      sizeBytes: big.length,
      steps: [...inChunks(altered(big).subarray(0, cutAt), 64 * KIB), new Error('cut')],
    });
    const second = new FakeBody({
      sizeBytes: big.length,
      start: cutAt,
      trusted: true,
      steps: inChunks(big.subarray(cutAt), 64 * KIB),
    });
    const got = await read(relayOf(big, [first, second]).relay);
    expect(got.error).toBeInstanceOf(WrongBytesError);
    expect(got.bytes.length).toBeLessThan(big.length);
  });

  it('Relay leaves a source that sends more than the blob has', async () => {
    const long = Buffer.concat([small, Buffer.from('x')]);
    const tooLong = new FakeBody({
      source: 'node/a',
      sizeBytes: small.length,
      steps: inChunks(long, 64 * KIB),
    });
    const { relay, asked } = relayOf(small, [tooLong, whole(small, { source: 'node/b' })]);
    expect((await read(relay)).bytes.equals(small)).toBe(true);
    expect(asked).toMatchObject([{ outcome: 'too_long' }]);
  });

  it('Relay passes over sources of another size', async () => {
    const first = new FakeBody({ sizeBytes: small.length, steps: [new Error('cut')] });
    const other = new FakeBody({ source: 'node/x', sizeBytes: 7, steps: [Buffer.alloc(7)] });
    const { relay, asked } = relayOf(small, [first, other, whole(small, { source: 'node/b' })]);
    expect((await read(relay)).bytes.equals(small)).toBe(true);
    expect(asked.map(({ failed, outcome }) => [failed, outcome])).toEqual([
      ['upstream', 'cut'],
      ['node/x', 'wrong_size'],
    ]);
    expect(other.cancels).toBe(1);
  });

  it('Relay ends when no source is left, having given what it had', async () => {
    const first = new FakeBody({
      sizeBytes: big.length,
      steps: [...inChunks(big.subarray(0, 128 * KIB), 64 * KIB), new Error('ECONNRESET')],
    });
    const got = await read(relayOf(big, [first]).relay);
    expect(got.error).toMatchObject({ name: 'SourceError', outcome: 'cut' });
    expect(big.subarray(0, got.bytes.length).equals(got.bytes)).toBe(true);
  });

  it('Relay gives up on sources that bring no byte, however many there are', async () => {
    const bodies = Array.from({ length: 50 }, (_, n) => {
      return new FakeBody({ source: `node/${n}`, sizeBytes: small.length, steps: [] });
    });
    const [first, ...others] = bodies;
    const { relay, asked } = relayOf(small, [first!, ...others]);
    expect((await read(relay)).error).toMatchObject({ outcome: 'cut' });
    expect(asked.length).toBe(4);
  });

  it('Relay cancels its source when the reader leaves early', async () => {
    const body = whole(big);
    const { relay } = relayOf(big, [body]);
    for await (const chunk of relay.chunks()) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(body.cancels).toBeGreaterThan(0);
    expect(body.pulls).toBeLessThan(5);
  });

  it('Relay lets an error of its own making through as it is', async () => {
    const { relay } = relayOf(small, [whole(small)], {
      tap: { ...recordingTap(), write: () => Promise.reject(new TypeError('a bug')) },
    });
    expect((await read(relay)).error).toBeInstanceOf(TypeError);
  });
});

describe('Relay with a tap', () => {
  it('Relay commits its tap before the last bytes go out', async () => {
    const tap = recordingTap();
    const { relay } = relayOf(big, [whole(big)], { tap });
    const eventsAtEachPiece: string[] = [];
    for await (const piece of relay.chunks()) {
      expect(piece.length).toBeGreaterThan(0);
      eventsAtEachPiece.push(tap.events.join());
    }
    expect(eventsAtEachPiece.at(-1)).toBe('commit');
    expect(new Set(eventsAtEachPiece.slice(0, -1))).toEqual(new Set(['']));
    expect(tap.bytes().equals(big)).toBe(true);
  });

  it('Relay gives its tap every byte once, over all sources', async () => {
    const tap = recordingTap();
    const first = new FakeBody({
      sizeBytes: big.length,
      steps: [...inChunks(big.subarray(0, 99_999), 10_000), new Error('cut')],
    });
    const { relay } = relayOf(big, [first, whole(big, { source: 'node/b' })], { tap });
    expect((await read(relay)).error).toBeUndefined();
    expect(tap.bytes().equals(big)).toBe(true);
  });

  it('Relay aborts its tap when the bytes are wrong, the sources end or the reader leaves', async () => {
    const cut = new FakeBody({
      sizeBytes: big.length,
      steps: [big.subarray(0, 5), new Error('x')],
    });
    for (const body of [whole(altered(big)), cut]) {
      const tap = recordingTap();
      await read(relayOf(big, [body], { tap }).relay);
      expect(tap.events).toEqual(['abort']);
    }
    const tap = recordingTap();
    const { relay } = relayOf(big, [whole(big)], { tap });
    for await (const chunk of relay.chunks()) {
      if (chunk.length > 0) break;
    }
    expect(tap.events).toEqual(['abort']);
  });

  it('Relay aborts a tap whose blob nobody has begun to read', async () => {
    const tap = recordingTap();
    const body = whole(big);
    const { relay } = relayOf(big, [body], { tap });
    relay.cancel();
    expect(tap.events).toEqual(['abort']);
    expect(body.cancels).toBe(1);
  });

  it('Relay gives the right bytes of a second source although the tap ended with the first', async () => {
    const tap = recordingTap();
    const { relay } = relayOf(small, [whole(altered(small)), whole(small)], { tap });
    const got = await read(relay);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(small)).toBe(true);
    expect(tap.events).toEqual(['abort']);
  });
});

describe('Relay of a range', () => {
  const window = { start: 300_000, end: 1_400_000 };
  const wanted = big.subarray(window.start, window.end + 1);

  it('Relay passes a range from a trusted source on at once', async () => {
    const body = new FakeBody({ sizeBytes: big.length, ...window, trusted: true });
    const { relay } = relayOf(big, [body], { window });
    const chunks = relay.chunks();
    body.push(wanted.subarray(0, 10));
    expect((await chunks.next()).value).toEqual(wanted.subarray(0, 10));
    body.push(wanted.subarray(10));
    expect((await chunks.next()).value).toEqual(wanted.subarray(10));
    expect((await chunks.next()).done).toBe(true);
  });

  it('Relay cuts a range out of what a trusted source sends in whole', async () => {
    for (const chunkBytes of [64 * KIB, 10_000, big.length]) {
      const body = new FakeBody({
        sizeBytes: big.length,
        trusted: true,
        steps: inChunks(big, chunkBytes),
      });
      const { relay, asked } = relayOf(big, [body], { window });
      const got = await read(relay);
      expect(asked).toEqual([]);
      expect(got.error).toBeUndefined();
      expect(got.bytes.equals(wanted)).toBe(true);
    }
  });

  it('Relay continues a range at the byte where its source was cut', async () => {
    const first = new FakeBody({
      sizeBytes: big.length,
      ...window,
      trusted: true,
      steps: [wanted.subarray(0, 500_000), new Error('cut')],
    });
    // The next one is asked for all the rest, not only the window.
    const second = new FakeBody({
      source: 'node/b',
      sizeBytes: big.length,
      start: 800_000,
      trusted: true,
      steps: inChunks(big.subarray(800_000), 64 * KIB),
    });
    const { relay, asked } = relayOf(big, [first, second], { window });
    const got = await read(relay);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(wanted)).toBe(true);
    expect(asked).toMatchObject([{ outcome: 'cut', start: 800_000, hashed: false }]);
  });

  it('Relay hashes a range of an untrusted source from zero and holds its end back', async () => {
    const body = new FakeBody({ source: 'node/a', sizeBytes: big.length });
    const { relay } = relayOf(big, [body], { window });
    const got: Buffer[] = [];
    const reading = (async () => {
      for await (const part of relay.chunks()) got.push(part);
    })();
    body.push(...inChunks(big.subarray(0, big.length - 1), 64 * KIB));
    await vi.advanceTimersByTimeAsync(100);
    // All of the range has come by now; the bytes behind it decide whether it was right.
    expect(Buffer.concat(got).length).toBeLessThan(wanted.length);
    body.push(big.subarray(big.length - 1));
    await reading;
    expect(Buffer.concat(got).equals(wanted)).toBe(true);
  });

  it('Relay holds all of a small range of an untrusted source back', async () => {
    const body = whole(altered(small), { source: 'node/a' });
    const { relay, asked } = relayOf(small, [body], { window: { start: 0, end: 9 } });
    const got = await read(relay);
    expect(got.bytes.length).toBe(0);
    expect(got.error).toMatchObject({ outcome: 'wrong_bytes' });
    expect(asked).toMatchObject([{ outcome: 'wrong_bytes', start: 0, hashed: false }]);
  });

  it('Relay takes a range from another source when the first was wrong', async () => {
    const wrong = whole(altered(small), { source: 'node/a' });
    const right = new FakeBody({
      source: 'upstream',
      sizeBytes: small.length,
      start: 100,
      trusted: true,
      steps: [small.subarray(100)],
    });
    const { relay } = relayOf(small, [wrong, right], { window: { start: 100, end: 5000 } });
    const got = await read(relay);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(small.subarray(100, 5001))).toBe(true);
  });

  it('Relay ends a range of wrong bytes before its last piece', async () => {
    const body = whole(altered(big), { source: 'node/a' });
    const got = await read(relayOf(big, [body], { window }).relay);
    expect(got.error).toBeInstanceOf(WrongBytesError);
    expect(got.bytes.length).toBeLessThan(wanted.length);
  });

  it('Relay does not blame a source that cannot vouch for the range alone', async () => {
    const unsure = new FakeBody({
      source: 'node/a',
      sizeBytes: big.length,
      ...window,
      trusted: false,
      steps: inChunks(wanted, 64 * KIB),
    });
    const sure = new FakeBody({
      source: 'node/b',
      sizeBytes: big.length,
      ...window,
      trusted: true,
      steps: inChunks(wanted, 64 * KIB),
    });
    const { relay, asked } = relayOf(big, [unsure, sure], { window });
    expect((await read(relay)).bytes.equals(wanted)).toBe(true);
    expect(asked).toMatchObject([{ failed: 'node/a', outcome: 'wrong_range' }]);
  });

  it('Relay never commits a tap for a part of a blob', async () => {
    const tap = recordingTap();
    await read(relayOf(big, [whole(big)], { window, tap }).relay);
    expect(tap.events).toEqual(['abort']);
    expect(tap.bytes().length).toBe(0);
  });
});
