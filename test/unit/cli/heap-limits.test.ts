import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const source = new URL('../../../src/', import.meta.url).href;
const run = promisify(execFile);

interface Passage {
  /** How often V8 searched all of its heap. */
  readonly major: number;
  /** The most that chunks took at a time, nearly all of which nobody used any more. */
  readonly mostBytes: number;
}

/** What happens while 2 GiB pass through a process in chunks. */
async function pass(parts: { readonly prelude: string; readonly each: string }): Promise<Passage> {
  // In a process of its own: these are settings of V8.
  const script = `
    import { PerformanceObserver, constants } from 'node:perf_hooks';
    import { setImmediate as turn } from 'node:timers/promises';
    import { limitHeapForStreams } from '${source}cli/heap-limits.ts';
    import { releaseStartupMemory } from '${source}cli/startup-memory.ts';
    import { notePassedBytes } from '${source}telemetry/passed-bytes.ts';
    ${parts.prelude}
    const kept = Array.from({ length: 400_000 }, (_, index) => ({ index }));
    releaseStartupMemory();
    let major = 0;
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries()) {
        if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) major += 1;
      }
    });
    observer.observe({ entryTypes: ['gc'] });
    let mostBytes = 0;
    let small;
    for (let count = 0; count < 16384; count += 1) {
      const chunk = Buffer.allocUnsafeSlow(128 * 1024);
      small = Array.from({ length: 50 }, () => ({ count }));
      ${parts.each}
      mostBytes = Math.max(mostBytes, process.memoryUsage().arrayBuffers);
      await turn();
    }
    await turn();
    console.log(JSON.stringify({ major, mostBytes, kept: kept.length + small.length }));
  `;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  return JSON.parse(stdout) as Passage;
}

test('streams cost few searches of the whole heap, and leave little behind', async () => {
  const [before, after] = await Promise.all([
    pass({ prelude: '', each: '' }),
    pass({ prelude: 'limitHeapForStreams();', each: 'notePassedBytes(chunk.length);' }),
  ]);
  expect(after.major).toBeLessThan(3);
  expect(after.major).toBeLessThan(before.major);
  // A small collection comes every 8 MiB, and what it has found is given back beside the work.
  expect(after.mostBytes).toBeLessThan(24 * 1024 ** 2);
  expect(before.mostBytes).toBeGreaterThan(32 * 1024 ** 2);
});
