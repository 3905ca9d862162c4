import { afterEach, expect, test } from 'vitest';
import { BusyError, ByteBudget } from '../../../src/registry/byte-budget.ts';
import { readWhole } from '../../../src/registry/read-whole.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { FakeBody, inChunks } from './fake-body.ts';

expectNoLeaks();

const LIMIT_BYTES = 1000;
const bytes = Buffer.alloc(900, 'a');
let budget = new ByteBudget({ limitBytes: LIMIT_BYTES });

afterEach(() => {
  budget = new ByteBudget({ limitBytes: LIMIT_BYTES });
});

const limits = (maxBytes = 10_000, stallMs = 5000) => ({ maxBytes, stallMs, budget });

test('readWhole pays for a body as it grows, and hands it to the lease at the end', async () => {
  const body = new FakeBody({ sizeBytes: bytes.length });
  const lease = budget.open();
  const reading = readWhole(body, { ...limits(), lease });
  body.push(bytes.subarray(0, 400));
  await expect.poll(() => budget.usedBytes).toBe(400);
  body.push(bytes.subarray(400));
  body.end();
  expect((await reading).equals(bytes)).toBe(true);
  expect(budget.usedBytes).toBe(900);
  lease.release();
  expect(budget.usedBytes).toBe(0);
});

test('readWhole gives everything back where nobody holds the whole', async () => {
  const body = new FakeBody({ sizeBytes: bytes.length, steps: inChunks(bytes, 100) });
  await readWhole(body, limits());
  expect(budget.usedBytes).toBe(0);
});

test('readWhole stops a body that the budget has no room for', async () => {
  const other = budget.take(500);
  const body = new FakeBody({ sizeBytes: bytes.length, steps: inChunks(bytes, 100) });
  await expect(readWhole(body, limits())).rejects.toThrow(BusyError);
  expect(body.cancels).toBe(1);
  expect(body.pulls).toBe(6);
  expect(budget.usedBytes).toBe(500);
  other?.release();
});

test.each([
  { how: 'is too long', end: 'too_long', options: { maxBytes: 500 }, last: undefined },
  { how: 'breaks off', end: 'cut', options: {}, last: new Error('gone') },
  { how: 'stalls', end: 'stalled', options: { stallMs: 20 }, last: 'stall' as const },
])('readWhole gives everything back when a body $how', async ({ end, options, last }) => {
  const steps = [...inChunks(bytes, 100), ...(last === undefined ? [] : [last])];
  const body = new FakeBody({ sizeBytes: bytes.length, steps });
  const { maxBytes, stallMs } = { maxBytes: 10_000, stallMs: 5000, ...options };
  await expect(readWhole(body, limits(maxBytes, stallMs))).rejects.toMatchObject({ outcome: end });
  expect(body.cancels).toBeGreaterThan(0);
  expect(budget.usedBytes).toBe(0);
});
