import { describe, expect, test } from 'vitest';
import { ReportSchedule } from '../../../src/report/report-schedule.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const intervalMs = 600_000;

function scene(options: { intervalMs?: number; isFirst?: () => boolean; fails?: boolean } = {}) {
  const clock = new FakeClock();
  const warned: string[] = [];
  const counts = { made: 0 };
  const schedule = new ReportSchedule(
    { intervalMs, ...options },
    {
      make: async () => {
        counts.made += 1;
        if (options.fails === true) throw new Error('made by a test');
      },
      isFirst: async () => options.isFirst?.() ?? true,
      clock,
      log: { ...silentLogger, warn: (_: unknown, text: string) => void warned.push(text) },
    },
  );
  /** Lets time pass, once the schedule waits for it. */
  const pass = async (durationMs: number): Promise<void> => {
    await expect.poll(() => clock.sleeping).toBe(1);
    clock.advance(durationMs);
    await expect.poll(() => clock.sleeping).toBe(1);
  };
  return { schedule, clock, counts, warned, pass };
}

describe('ReportSchedule', () => {
  test('ReportSchedule makes its first report early and the next after each interval', async () => {
    const { schedule, counts, pass } = scene();
    schedule.start();
    await pass(intervalMs / 10);
    expect(counts.made).toBe(1);
    await pass(intervalMs - 1);
    expect(counts.made).toBe(1);
    await pass(1);
    expect(counts.made).toBe(2);
    await schedule.stop();
  });

  test('ReportSchedule leaves the work to members that come before, as long as they live', async () => {
    let isFirst = false;
    const { schedule, counts, pass } = scene({ isFirst: () => isFirst });
    schedule.start();
    await pass(intervalMs);
    expect(counts.made).toBe(0);
    isFirst = true;
    await pass(intervalMs);
    expect(counts.made).toBe(1);
    await schedule.stop();
  });

  test('ReportSchedule goes on after a report that failed, and says so', async () => {
    const { schedule, counts, pass, warned } = scene({ fails: true });
    schedule.start();
    await pass(intervalMs);
    await pass(intervalMs);
    expect(counts.made).toBe(2);
    expect(warned).toHaveLength(2);
    await schedule.stop();
  });

  test('ReportSchedule of no interval does nothing', async () => {
    const { schedule, clock } = scene({ intervalMs: 0 });
    schedule.start();
    expect(clock.sleeping).toBe(0);
    await schedule.stop();
  });
});
