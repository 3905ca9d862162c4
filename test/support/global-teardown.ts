import { randomUUID } from 'node:crypto';
import { processesNaming } from './leaks.ts';
import { waitFor } from './wait.ts';
import { mountsBelow, runVariable, workRoot } from './work-dir.ts';

const settleTimeoutMs = 5000;

/**
 * Fails the run when programs or mounts that its tests made are left. Of other runs that happen at
 * the same time it takes no notice.
 *
 * @returns what vitest calls at the end
 */
export default function setup(): () => Promise<void> {
  // Workers inherit it, and so it is in the path of every file that they make.
  const run = `run${randomUUID().slice(0, 8)}`;
  process.env[runVariable] = run;
  return async () => {
    // A program that was told to end a moment ago may need that moment.
    await waitFor(async () => (await leftovers(run)).length === 0, {
      timeoutMs: settleTimeoutMs,
    }).catch(async () => {
      throw new Error(`Tests left behind:\n${(await leftovers(run)).join('\n')}`);
    });
  };
}

async function leftovers(run: string): Promise<string[]> {
  const [processes, mounts] = await Promise.all([
    processesNaming(`-${run}-`),
    mountsBelow(workRoot),
  ]);
  return [
    ...processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...mounts.filter((mount) => mount.includes(`-${run}-`)).map((mount) => `mount ${mount}`),
  ];
}
