import { expect, test } from 'vitest';

import { DiskWatch, readDiskUsage, usedPercent } from '../../../src/agent/disk-usage.ts';
import type { DiskUsage } from '../../../src/agent/disk-usage.ts';
import { createLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const log = createLogger({ level: 'silent' });

test('readDiskUsage gives the size and what is available of a real file system', async () => {
  const { sizeBytes, availableBytes } = await readDiskUsage(import.meta.dirname);
  expect(sizeBytes).toBeGreaterThan(0);
  expect(availableBytes).toBeLessThanOrEqual(sizeBytes);
  await expect(readDiskUsage('/nonexistent/path')).rejects.toThrow('ENOENT');
});

test('usedPercent counts what is not available as used', () => {
  expect(usedPercent({ sizeBytes: 200, availableBytes: 50 })).toBe(75);
  expect(usedPercent({ sizeBytes: 0, availableBytes: 0 })).toBe(0);
});

test('DiskWatch tells listeners of every look until it stops, and knows nothing while it cannot look', async () => {
  const clock = new FakeClock();
  const looks: (DiskUsage | undefined)[] = [];
  let answer: DiskUsage | undefined = { sizeBytes: 100, availableBytes: 40 };
  const read = (): Promise<DiskUsage> =>
    answer === undefined ? Promise.reject(new Error('gone')) : Promise.resolve(answer);
  const watch = new DiskWatch({ intervalMs: 1000 }, { read, clock, log });
  const unsubscribe = watch.subscribe((usage) => void looks.push(usage));
  watch.subscribe(() => Promise.reject(new Error('a listener that fails')));

  watch.start();
  await clock.untilSleeping();
  expect(watch.latest).toEqual(answer);
  answer = undefined;
  clock.advance(1000);
  await clock.untilSleeping();
  expect(watch.latest).toBeUndefined();
  answer = { sizeBytes: 100, availableBytes: 10 };
  clock.advance(1000);
  await clock.untilSleeping();
  expect(looks.map((usage) => usage?.availableBytes)).toEqual([40, 10]);
  unsubscribe();
  clock.advance(1000);
  await clock.untilSleeping();
  expect(looks).toHaveLength(2);
  await watch.stop();
  expect(clock.sleeping).toBe(0);
});
