import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { withStallGuard } from '../../../src/registry/stall-guard.ts';
import { FakeBody } from './fake-body.ts';

const STALL_MS = 5000;
const sizeBytes = 1024 * 1024;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** Reads everything, at once; what it comes to is there to be looked at meanwhile. */
function readAll(body: FakeBody): { bytes: number; error: unknown; done: Promise<void> } {
  const state = { bytes: 0, error: undefined as unknown, done: Promise.resolve() };
  state.done = (async () => {
    try {
      for await (const chunk of withStallGuard(body, STALL_MS)) state.bytes += chunk.length;
    } catch (error) {
      state.error = error;
    }
  })();
  return state;
}

describe('withStallGuard', () => {
  it('withStallGuard passes on every chunk, as it is', async () => {
    const chunks = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(70_000, 1)];
    const body = new FakeBody({ sizeBytes, steps: chunks });
    const got: Buffer[] = [];
    for await (const chunk of withStallGuard(body, STALL_MS)) got.push(chunk);
    expect(got.map((chunk, index) => chunk === chunks[index])).toEqual([true, true, true]);
    expect(body.cancels).toBe(0);
  });

  it('withStallGuard cancels a body that brings nothing for the stall time', async () => {
    const body = new FakeBody({ source: 'node/a', sizeBytes });
    body.push(Buffer.alloc(10_000));
    const reading = readAll(body);
    await vi.advanceTimersByTimeAsync(STALL_MS - 1);
    expect(body.cancels).toBe(0);
    await vi.advanceTimersByTimeAsync(STALL_MS * 0.1);
    await reading.done;
    expect(body.cancels).toBeGreaterThan(0);
    expect(reading.error).toBeInstanceOf(SourceError);
    expect(reading.error).toMatchObject({ outcome: 'stalled' });
    expect((reading.error as Error).message).toBe('node/a made no progress for 5000 ms');
  });

  it('withStallGuard takes a cancelled body that ends politely for a stalled one', async () => {
    const body = new FakeBody({ sizeBytes });
    const polite = {
      source: body.source,
      sizeBytes,
      stretch: body.stretch,
      trusted: false,
      cancel: () => body.end(),
      chunks: body.chunks,
    };
    const reading = (async () => {
      for await (const chunk of withStallGuard(polite, STALL_MS)) expect(chunk).toBeDefined();
    })();
    const outcome = reading.catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(STALL_MS * 1.2);
    expect(await outcome).toMatchObject({ outcome: 'stalled' });
  });

  it('withStallGuard starts anew with each chunk that is large enough', async () => {
    const body = new FakeBody({ sizeBytes });
    const reading = readAll(body);
    for (let round = 0; round < 10; round += 1) {
      await vi.advanceTimersByTimeAsync(STALL_MS * 0.8);
      body.push(Buffer.alloc(4096));
    }
    await vi.advanceTimersByTimeAsync(0);
    expect(reading.bytes).toBe(40_960);
    body.end();
    await reading.done;
    expect(reading.error).toBeUndefined();
  });

  it('withStallGuard does not take a trickle for progress', async () => {
    const body = new FakeBody({ sizeBytes });
    const reading = readAll(body);
    for (let ms = 0; ms < STALL_MS * 1.3; ms += 100) {
      body.push(Buffer.alloc(1));
      await vi.advanceTimersByTimeAsync(100);
    }
    await reading.done;
    expect(reading.error).toMatchObject({ outcome: 'stalled' });
    expect(reading.bytes).toBeLessThan(60);
  });

  it('withStallGuard adds small chunks up to progress', async () => {
    const body = new FakeBody({ sizeBytes });
    const reading = readAll(body);
    for (let ms = 0; ms < STALL_MS * 4; ms += 100) {
      body.push(Buffer.alloc(200));
      await vi.advanceTimersByTimeAsync(100);
    }
    body.end();
    await reading.done;
    expect(reading.error).toBeUndefined();
  });

  it('withStallGuard does not count the time that the reader takes', async () => {
    const body = new FakeBody({ sizeBytes });
    const chunks = withStallGuard(body, STALL_MS);
    for (let round = 0; round < 5; round += 1) {
      body.push(Buffer.alloc(100));
      expect((await chunks.next()).done).toBe(false);
      await vi.advanceTimersByTimeAsync(STALL_MS * 3);
    }
    expect(body.cancels).toBe(0);
    body.end();
    expect((await chunks.next()).done).toBe(true);
  });

  it('withStallGuard wraps what the body throws, and keeps a SourceError', async () => {
    const reset = readAll(new FakeBody({ sizeBytes, steps: [new Error('ECONNRESET')] }));
    await reset.done;
    expect(reset.error).toMatchObject({
      outcome: 'cut',
      message: 'upstream broke off: ECONNRESET',
    });
    const own = new SourceError('busy', 'too many readers');
    const busy = readAll(new FakeBody({ sizeBytes, steps: [own] }));
    await busy.done;
    expect(busy.error).toBe(own);
  });

  it('withStallGuard leaves no timer when the reader leaves early', async () => {
    const body = new FakeBody({ sizeBytes, steps: [Buffer.alloc(9), Buffer.alloc(9)] });
    for await (const chunk of withStallGuard(body, STALL_MS)) {
      expect(chunk.length).toBe(9);
      break;
    }
    expect(vi.getTimerCount()).toBe(0);
  });
});
