import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

const source = new URL('../../../src/cli/startup-memory.ts', import.meta.url).href;

test('releaseStartupMemory gives memory back that is no longer used', async () => {
  // In a process of its own: how much this one uses depends on the tests before.
  const script = `
    import { releaseStartupMemory } from ${JSON.stringify(source)};
    let kept = Array.from({ length: 1_000_000 }, (_, index) => ({ index }));
    kept = kept.length;
    const before = process.memoryUsage().rss;
    releaseStartupMemory();
    const releasedBytes = before - process.memoryUsage().rss;
    console.log(JSON.stringify({ releasedBytes, gc: typeof globalThis.gc }));
  `;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  const { releasedBytes, gc } = JSON.parse(stdout) as { releasedBytes: number; gc: string };
  expect(releasedBytes).toBeGreaterThan(20_000_000);
  expect(gc).toBe('undefined');
});

test('releaseStartupMemory gives up the bytecode of what ran once, and leaves V8 as it was', async () => {
  const script = `
    import { getHeapCodeStatistics } from 'node:v8';
    import { releaseStartupMemory } from ${JSON.stringify(source)};
    const once = Array.from({ length: 2000 }, (_, index) => {
      const run = new Function('a', 'return [' + 'a + 1,'.repeat(50) + index + ']');
      run(1);
      return run;
    });
    const size = () => getHeapCodeStatistics().bytecode_and_metadata_size;
    const before = size();
    releaseStartupMemory();
    console.log(JSON.stringify({ before, after: size(), last: once.at(-1)(1).at(-1) }));
  `;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  const { before, after, last } = JSON.parse(stdout) as Record<string, number>;
  expect(after).toBeLessThan(before! / 2);
  expect(last).toBe(1999);
  const { stdout: options } = await run(process.execPath, ['--v8-options']);
  expect(options).toMatch(/default: --bytecode-old-age=6$/m);
});
