import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { FakeBody, inChunks } from './fake-body.ts';
import {
  KIB,
  STALL_MS,
  altered,
  big,
  read,
  recordingTap,
  relayOf,
  small,
  whole,
} from './relay-scene.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

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
