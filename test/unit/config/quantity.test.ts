import fc from 'fast-check';
import { expect, test } from 'vitest';

import { formatQuantity, parseQuantity } from '../../../src/config/quantity.ts';
import type { Unit } from '../../../src/config/setting.ts';

test.each([
  ['400', 400],
  ['400ms', 400],
  ['2s', 2000],
  ['1.5s', 1500],
  ['0.1s', 100],
  ['5min', 300_000],
  ['5m', 300_000],
  ['1h30m', 5_400_000],
  ['1h 30m', undefined],
  ['1 h', 3_600_000],
  ['2D', 172_800_000],
  ['0.5ms', undefined],
  ['30m1h', undefined],
  ['1s1s', undefined],
  ['-1s', undefined],
  ['1e3', undefined],
  ['s', undefined],
  ['', undefined],
  [' ', undefined],
  ['1 fortnight', undefined],
  ['5MiB', undefined],
  ['9'.repeat(20), undefined],
  ['1'.repeat(41), undefined],
])('parseQuantity reads the time %j as %j', (written, expected) => {
  expect(parseQuantity(written, 'milliseconds')).toBe(expected);
});

test.each([
  ['65536', 65_536],
  ['64KiB', 65_536],
  ['64kb', 64_000],
  ['1.5GiB', 1.5 * 1024 ** 3],
  ['20 GiB', 20 * 1024 ** 3],
  ['1b', 1],
  ['1KiB1b', undefined],
  ['1.3b', undefined],
  ['2s', undefined],
  ['64MiB/s', undefined],
])('parseQuantity reads the size %j as %j', (written, expected) => {
  expect(parseQuantity(written, 'bytes')).toBe(expected);
});

test('parseQuantity takes "/s" after a rate', () => {
  expect(parseQuantity('64MiB/s', 'bytes per second')).toBe(64 * 1024 ** 2);
  expect(parseQuantity('64MiB', 'bytes per second')).toBe(64 * 1024 ** 2);
});

test('parseQuantity takes no unit after a number of items', () => {
  expect(parseQuantity('64', 'items')).toBe(64);
  expect(parseQuantity('64KiB', 'items')).toBeUndefined();
});

test('parseQuantity reads back whatever formatQuantity writes', () => {
  const units: Unit[] = ['milliseconds', 'bytes per second', 'items'];
  fc.assert(
    fc.property(fc.nat(), fc.constantFrom(...units), (value, unit) => {
      const written = formatQuantity(value, unit).replace('bytes', 'b');
      expect(parseQuantity(written, unit)).toBe(value);
    }),
  );
});

test('parseQuantity never throws and never gives a number that is not whole', () => {
  fc.assert(
    fc.property(fc.string(), (written) => {
      const value = parseQuantity(written, 'milliseconds');
      expect(value === undefined || Number.isSafeInteger(value)).toBe(true);
    }),
  );
});
