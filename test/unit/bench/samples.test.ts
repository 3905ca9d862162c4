import { describe, expect, test } from 'vitest';
import { added, countRequests, percentile } from '../../bench/samples.ts';

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

describe('added', () => {
  test('subtracts pair by pair', () => {
    expect(added([5, 2, 9], [1, 4, 9])).toEqual([4, -2, 0]);
  });

  test('refuses sides of different length', () => {
    expect(() => added([1, 2], [1])).toThrow('Cannot pair 2 samples with 1');
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
