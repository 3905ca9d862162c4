import { processesNaming } from './leaks.ts';
import { mountsBelow, workRoot } from './work-dir.ts';
import { waitFor } from './wait.ts';

const settleTimeoutMs = 5000;

/**
 * Fails the run when programs or mounts of ours are left that were not there before it.
 *
 * @returns what vitest calls at the end
 */
export default async function setup(): Promise<() => Promise<void>> {
  const before = new Set(await leftovers());
  return async () => {
    const fresh = async (): Promise<string[]> =>
      (await leftovers()).filter((entry) => !before.has(entry));
    // A program that was told to end a moment ago may need that moment.
    await waitFor(async () => (await fresh()).length === 0, {
      timeoutMs: settleTimeoutMs,
    }).catch(async () => {
      throw new Error(`Tests left behind:\n${(await fresh()).join('\n')}`);
    });
  };
}

async function leftovers(): Promise<string[]> {
  const [processes, mounts] = await Promise.all([
    processesNaming(`${workRoot}/`),
    mountsBelow(workRoot),
  ]);
  return [
    ...processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...mounts.map((mount) => `mount ${mount}`),
  ];
}
