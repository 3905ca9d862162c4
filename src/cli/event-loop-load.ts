import { performance } from 'node:perf_hooks';
import type { MeasureLoad } from '../registry/turns.ts';

/** Measures how much of its time this process's event loop is at work, from one call to the next. */
export function eventLoopLoad(): MeasureLoad {
  let last = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, last);
    last = now;
    return utilization;
  };
}
