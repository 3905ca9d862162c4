import { expect, test } from 'vitest';
import { ByteBudget } from '../../../src/registry/byte-budget.ts';

test('ByteBudget gives what is left and not a byte more', () => {
  const budget = new ByteBudget({ limitBytes: 100 });
  expect(budget.take(60)).toBeDefined();
  expect(budget.take(41)).toBeUndefined();
  expect(budget.take(40)).toBeDefined();
  expect(budget.usedBytes).toBe(100);
});

test('ByteLease gives back once, however often it is told', () => {
  const seen: number[] = [];
  const budget = new ByteBudget(
    { limitBytes: 100 },
    { onChange: (usedBytes) => seen.push(usedBytes) },
  );
  const lease = budget.take(60);
  const other = budget.take(10);
  lease?.release();
  lease?.release();
  expect(budget.usedBytes).toBe(10);
  expect(seen).toEqual([60, 70, 10]);
  other?.release();
  expect(budget.usedBytes).toBe(0);
});

test('ByteLease grows within the budget, and not when it is over', () => {
  const budget = new ByteBudget({ limitBytes: 100 });
  const lease = budget.open();
  expect(lease.grow(100)).toBe(true);
  expect(lease.grow(1)).toBe(false);
  expect(budget.usedBytes).toBe(100);
  lease.release();
  expect(lease.grow(1)).toBe(false);
  expect(budget.usedBytes).toBe(0);
});

test('ByteLease counts a buffer once for all that hold it', () => {
  const budget = new ByteBudget({ limitBytes: 10 });
  const buffer = Buffer.alloc(30);
  const [first, second] = [budget.open(), budget.open()];
  first.hold(buffer);
  first.hold(buffer);
  second.hold(buffer);
  // It is in memory already: refusing would not free it.
  expect(budget.usedBytes).toBe(30);
  expect(budget.take(1)).toBeUndefined();
  first.release();
  expect(budget.usedBytes).toBe(30);
  second.release();
  expect(budget.usedBytes).toBe(0);
  second.hold(buffer);
  expect(budget.usedBytes).toBe(0);
});
