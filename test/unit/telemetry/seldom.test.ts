import { expect, test } from 'vitest';
import { Seldom } from '../../../src/telemetry/seldom.ts';

test('Seldom lets each thing be said once in a while, and forgets the oldest', () => {
  let nowMs = 0;
  const seldom = new Seldom({ intervalMs: 1000, maxKeys: 2 }, { now: () => nowMs });
  expect([seldom.isDue('a'), seldom.isDue('a'), seldom.isDue('b')]).toEqual([true, false, true]);
  nowMs = 999;
  expect(seldom.isDue('a')).toBe(false);
  nowMs = 1000;
  expect(seldom.isDue('a')).toBe(true);
  // "b" is the oldest now, and has to make room.
  expect(seldom.isDue('c')).toBe(true);
  expect([seldom.isDue('a'), seldom.isDue('b')]).toEqual([false, true]);
});
