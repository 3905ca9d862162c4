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
