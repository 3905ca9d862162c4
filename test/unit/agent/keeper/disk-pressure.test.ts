import { expect, test } from 'vitest';

import {
  calmPercent,
  nextPressure,
  type PressureLevel,
} from '../../../../src/agent/keeper/disk-pressure.ts';

const limits = { releaseAtPercent: 75, dropAtPercent: 80 };

test('nextPressure rises at the thresholds and falls only some percent below them', () => {
  let level: PressureLevel = 'none';
  const levels = [74.9, 75, 74, 72.1, 72, 73, 79.9, 80, 79, 72.5, 71].map((percent) => {
    level = nextPressure(level, percent, limits);
    return level;
  });
  expect(levels).toEqual([
    ...['none', 'release', 'release', 'release', 'none', 'none'],
    ...['release', 'drop', 'release', 'release', 'none'],
  ]);
});

test('calmPercent is never below nothing', () => {
  expect(calmPercent({ ...limits, releaseAtPercent: 1 })).toBe(0);
});
