import { describe, expect, test } from 'vitest';
import { statusOf, type FailOn } from '../../../src/cli/report.ts';

const summary = { images: 3, survives: 1, singleCopy: 1, notServable: 1, servableShare: 0.67 };
const good = { isComplete: true, summary: { ...summary, singleCopy: 0, notServable: 0 } };
const lone = { isComplete: true, summary: { ...summary, notServable: 0 } };
const bad = { isComplete: false, summary };

describe('statusOf', () => {
  test.each([
    [bad, [], 0],
    [bad, ['not-servable'], 3],
    [bad, ['single-copy'], 3],
    [bad, ['incomplete', 'not-servable'], 4],
    [lone, ['not-servable'], 0],
    [lone, ['single-copy'], 3],
    [lone, ['incomplete'], 0],
    [good, ['not-servable', 'single-copy', 'incomplete'], 0],
  ] as [typeof good, FailOn[], number][])(
    'statusOf is what was asked for: %#',
    (report, failOn, status) => {
      expect(statusOf(report, failOn)).toBe(status);
    },
  );
});
