import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const directory = new URL('../../../src/cli/', import.meta.url).href;
const run = promisify(execFile);

/** How often V8 searches all of its heap while 2 GiB pass through in chunks. */
async function countMajorCollections(prelude: string): Promise<number> {
  const script = `
    import { PerformanceObserver, constants } from 'node:perf_hooks';
    import { setImmediate as turn } from 'node:timers/promises';
    import { limitHeapForStreams } from '${directory}heap-limits.ts';
    import { releaseStartupMemory } from '${directory}startup-memory.ts';
    ${prelude}
    const kept = Array.from({ length: 400_000 }, (_, index) => ({ index }));
    releaseStartupMemory();
    let major = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries()) {
        if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) major += 1;
      }
    });
    observer.observe({ entryTypes: ['gc'] });
    let chunk, small;
    for (let count = 0; count < 8192; count += 1) {
      chunk = Buffer.allocUnsafeSlow(256 * 1024);
      small = Array.from({ length: 100 }, () => ({ count }));
      await turn();
    }
    await turn();
    console.log(major, chunk.length, small.length, kept.length);
  `;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  return Number(stdout.split(' ')[0]);
}

test('limitHeapForStreams spares V8 most of its searches', async () => {
  const [before, after] = await Promise.all([
    countMajorCollections(''),
    countMajorCollections('limitHeapForStreams();'),
  ]);
  expect(before).toBeGreaterThan(20);
  expect(after).toBeLessThan(before / 2);
});
