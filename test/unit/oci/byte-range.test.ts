import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  formatContentRange,
  formatRangeHeader,
  formatUnsatisfiedContentRange,
  parseByteRange,
  parseContentRange,
  resolveByteRange,
} from '../../../src/oci/byte-range.ts';
import { valueOf, titled } from './arbitraries.ts';

const MAX = Number.MAX_SAFE_INTEGER;
const sizes = fc.maxSafeNat();

describe('parseByteRange', () => {
  it.each([
    ['bytes=0-', { start: 0 }],
    ['bytes=0-0', { start: 0, end: 0 }],
    ['bytes=5-9', { start: 5, end: 9 }],
    ['bytes=500-', { start: 500 }],
    ['bytes=-1', { suffix: 1 }],
    ['Bytes=1-2', { start: 1, end: 2 }],
    ['bytes= 1-2 ', { start: 1, end: 2 }],
    ['bytes=\t1-2', { start: 1, end: 2 }],
    ['bytes=007-0010', { start: 7, end: 10 }],
    [`bytes=0-${MAX}`, { start: 0, end: MAX }],
    ['bytes=0-99999999999999999999', { start: 0, end: MAX }],
    ['bytes=99999999999999999999-', { start: MAX }],
    ['bytes=-99999999999999999999', { suffix: MAX }],
    [`bytes=${'9'.repeat(200)}-`, { start: MAX }],
  ])('reads %s', (header, spec) => {
    expect(parseByteRange(header)).toEqual({ kind: 'range', spec });
  });

  it.each(
    titled(['bytes=5-2', 'bytes=1-0', 'bytes=-0', 'bytes=-000', 'bytes=99999999999999999999-5']),
  )('finds %s unsatisfiable', (_, header) => {
    expect(parseByteRange(header)).toEqual({ kind: 'unsatisfiable' });
  });

  it.each(
    titled([
      undefined,
      '',
      'bytes',
      'bytes=',
      'bytes=-',
      'bytes=0-1,3-4',
      'bytes=0-1,',
      'bytes=,0-1',
      'bytes=-1,-2',
      'items=0-5',
      'bytes 0-5',
      'bytes=0-5/10',
      'bytes=a-b',
      'bytes=0x0-0x5',
      'bytes=+0-5',
      'bytes=0--5',
      'bytes=--5',
      'bytes=1.5-2',
      'bytes=1e3-2e3',
      'bytes=0 - 5',
      'bytes=0-5\r\nX-Evil: 1',
      'bytes=0-5\0',
      'bytes=\u0661-\u0662',
      '0-5',
      `bytes=${'0'.repeat(10_000)}-`,
      `bytes=0-${'1,2-'.repeat(5_000)}`,
    ]),
  )('ignores %s', (_, header) => {
    expect(parseByteRange(header)).toEqual({ kind: 'none' });
  });

  it('reads what formatRangeHeader wrote', () => {
    fc.assert(
      fc.property(sizes, fc.option(sizes, { nil: undefined }), (start, length) => {
        const end = length === undefined ? undefined : Math.min(start + length, MAX);
        const spec = end === undefined ? { start } : { start, end };
        expect(parseByteRange(formatRangeHeader(start, end))).toEqual({ kind: 'range', spec });
      }),
    );
  });

  it('never throws', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('bytes=', '-', ',', '0', '9', ' ') }),
        (text) => {
          expect(['none', 'range', 'unsatisfiable']).toContain(parseByteRange(text).kind);
        },
      ),
    );
  });
});

describe('resolveByteRange', () => {
  it.each([
    [{ start: 0 }, 10, { start: 0, end: 9 }],
    [{ start: 9 }, 10, { start: 9, end: 9 }],
    [{ start: 2, end: 4 }, 10, { start: 2, end: 4 }],
    [{ start: 2, end: 9 }, 10, { start: 2, end: 9 }],
    [{ start: 2, end: 10 }, 10, { start: 2, end: 9 }],
    [{ start: 0, end: MAX }, 10, { start: 0, end: 9 }],
    [{ suffix: 3 }, 10, { start: 7, end: 9 }],
    [{ suffix: 10 }, 10, { start: 0, end: 9 }],
    [{ suffix: MAX }, 10, { start: 0, end: 9 }],
    [{ start: 10 }, 10, undefined],
    [{ start: MAX }, 10, undefined],
    [{ start: 10, end: 12 }, 10, undefined],
    [{ start: 5, end: 2 }, 10, undefined],
    [{ suffix: 0 }, 10, undefined],
    [{ start: 0 }, 0, undefined],
    [{ start: 0, end: 0 }, 0, undefined],
    [{ suffix: 1 }, 0, undefined],
  ])('applies %j to %d bytes', (spec, sizeBytes, range) => {
    expect(resolveByteRange(spec, sizeBytes)).toEqual(range);
  });

  it('stays inside the content', () => {
    const specs = fc.oneof(
      fc.record({ start: sizes }),
      fc.record({ start: sizes, end: sizes }),
      fc.record({ suffix: sizes }),
    );
    fc.assert(
      fc.property(specs, fc.oneof(sizes, fc.nat(20)), (spec, sizeBytes) => {
        const range = resolveByteRange(spec, sizeBytes);
        if (range !== undefined) {
          expect(range.start).toBeGreaterThanOrEqual(0);
          expect(range.end).toBeGreaterThanOrEqual(range.start);
          expect(range.end).toBeLessThan(sizeBytes);
        }
      }),
    );
  });
});

describe('formatRangeHeader', () => {
  it('writes open and closed ranges', () => {
    expect(formatRangeHeader(0)).toBe('bytes=0-');
    expect(formatRangeHeader(5, 9)).toBe('bytes=5-9');
    expect(formatRangeHeader(5, 5)).toBe('bytes=5-5');
  });

  it.each([[-1], [1.5], [Number.NaN], [Infinity], [MAX + 1], [5, 4], [0, -1], [0, 1.5]])(
    'throws on %d, %d',
    (start, end?: number) => {
      expect(() => formatRangeHeader(start, end)).toThrow(RangeError);
    },
  );
});

describe('parseContentRange', () => {
  it.each([
    ['bytes 0-4/10', { start: 0, end: 4, sizeBytes: 10 }],
    ['bytes 9-9/10', { start: 9, end: 9, sizeBytes: 10 }],
    ['bytes 0-4/*', { start: 0, end: 4 }],
    ['BYTES 0-4/10', { start: 0, end: 4, sizeBytes: 10 }],
    [`bytes 0-${MAX - 1}/${MAX}`, { start: 0, end: MAX - 1, sizeBytes: MAX }],
  ])('reads %s', (header, range) => {
    expect(valueOf(parseContentRange(header))).toEqual(range);
  });

  it.each(
    titled([
      undefined,
      '',
      'bytes */10',
      'bytes */*',
      'bytes 0-4',
      'bytes=0-4/10',
      'bytes 0-10/10',
      'bytes 5-4/10',
      'bytes 0-/10',
      'bytes -5/10',
      'bytes 0-4/',
      'bytes 0-4/0',
      'bytes 0-4/10, bytes 5-9/10',
      'items 0-4/10',
      'bytes 0-4/10\r\nX: 1',
      'bytes 0-4/0x10',
      'bytes 0-4/99999999999999999999',
      'bytes 0-99999999999999999999/*',
      'bytes 99999999999999999998-99999999999999999999/*',
      `bytes 0-4/${'1'.repeat(10_000)}`,
    ]),
  )('refuses %s', (_, header) => {
    expect(parseContentRange(header).ok).toBe(false);
  });

  it('reads what formatContentRange wrote', () => {
    fc.assert(
      fc.property(sizes, sizes, sizes, (one, two, three) => {
        const [start = 0, end = 0, sizeBytes = 0] = [one, two, three].sort((a, b) => a - b);
        fc.pre(end < sizeBytes);
        expect(valueOf(parseContentRange(formatContentRange({ start, end }, sizeBytes)))).toEqual({
          start,
          end,
          sizeBytes,
        });
      }),
    );
  });
});

describe('formatContentRange', () => {
  it('writes a range of a size', () => {
    expect(formatContentRange({ start: 2, end: 4 }, 10)).toBe('bytes 2-4/10');
  });

  it('throws on a range outside the content', () => {
    expect(() => formatContentRange({ start: 0, end: 10 }, 10)).toThrow(RangeError);
    expect(() => formatContentRange({ start: 3, end: 2 }, 10)).toThrow(RangeError);
    expect(() => formatContentRange({ start: 0, end: 0 }, Number.NaN)).toThrow(RangeError);
  });
});

describe('formatUnsatisfiedContentRange', () => {
  it('writes the size alone', () => {
    expect(formatUnsatisfiedContentRange(10)).toBe('bytes */10');
  });
});
