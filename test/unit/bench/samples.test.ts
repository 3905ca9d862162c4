import { describe, expect, test } from 'vitest';
import { addedAt, countRequests, percentile } from '../../bench/samples.ts';

const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);

describe('percentile', () => {
  test.each([
    [0.5, 50],
    [0.99, 99],
    [0.991, 100],
    [1, 100],
    [0.001, 1],
  ])('gives the nearest rank for a share of %d', (share, value) => {
    expect(percentile(hundred, share)).toBe(value);
  });

  test('gives a lone sample for every share', () => {
    expect(percentile([7], 0.01)).toBe(7);
    expect(percentile([7], 0.99)).toBe(7);
  });

  test('leaves the samples in their order', () => {
    const samples = [3, 1, 2];
    percentile(samples, 0.5);
    expect(samples).toEqual([3, 1, 2]);
  });

  test('refuses what has no answer', () => {
    expect(() => percentile([], 0.5)).toThrow('Cannot take a percentile of nothing');
    expect(() => percentile([1], 0)).toThrow('Cannot take a share of 0');
    expect(() => percentile([1], 99)).toThrow('Cannot take a share of 99');
  });
});

describe('addedAt', () => {
  test('compares the same percentile of both sides, in whatever order the samples came', () => {
    const own = hundred.map((value) => value * 3);
    expect(addedAt({ own, base: hundred.toReversed() }, 0.5)).toBe(100);
    expect(addedAt({ own, base: hundred }, 0.99)).toBe(198);
  });

  test('adds nothing where both sides met the same trouble at different times', () => {
    const sides = { own: [1, 1, 90, 1], base: [90, 1, 1, 1] };
    expect(addedAt(sides, 0.99)).toBe(0);
    expect(addedAt({ ...sides, own: [2, 1, 3, 1] }, 0.99)).toBe(-87);
  });

  test('refuses a side without samples', () => {
    expect(() => addedAt({ own: [1], base: [] }, 0.5)).toThrow('a percentile of nothing');
  });
});

describe('countRequests', () => {
  test('counts one path with and without a query, and nothing that only resembles it', () => {
    const path = '/v2/a/manifests/v1';
    const others = [`${path}0`, `/other${path}`, '/v2/', `/v2/x?of=${path}`];
    const requests = [path, `${path}?ns=x`, path, ...others].map((each) => ({ path: each }));
    expect(countRequests(requests, path)).toBe(3);
    expect(countRequests([], path)).toBe(0);
  });
});
