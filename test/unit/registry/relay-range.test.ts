import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { FakeBody, inChunks } from './fake-body.ts';
import { KIB, altered, big, read, recordingTap, relayOf, small, whole } from './relay-scene.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
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
