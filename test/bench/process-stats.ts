import { readFileSync } from 'node:fs';

// Linux reports processor time in units of this, whatever the kernel's own clock is.
const ticksPerSecond = 100;

/**
 * Processor time that processes and their children have taken so far, in seconds.
 *
 * @throws when one of them has ended
 */
export function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids.flatMap((one) => [one, ...childrenOf(one)])) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field, a name, may contain anything; the fields behind it are numbers.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / ticksPerSecond;
}

/**
 * Memory that processes running the same binary keep resident together, in MiB: what each has of
 * its own, and once the files that all of them map, the Node binary above all.
 *
 * @throws when one of them has ended
 */
export function residentMib(pids: readonly number[]): number {
  let ownKib = 0;
  let filesKib = 0;
  for (const pid of pids) {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
    const kib = (field: string): number =>
      Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1] ?? Number.NaN);
    ownKib += kib('Anonymous');
    filesKib = Math.max(filesKib, kib('Rss') - kib('Anonymous'));
  }
  return (ownKib + filesKib) / 1024;
}

/**
 * The sum of what the kernel calls resident for each, shared pages counted for each: VmRSS, in MiB.
 *
 * @throws when one of them has ended
 */
export function summedRssMib(pids: readonly number[]): number {
  let kib = 0;
  for (const pid of pids) {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    kib += Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN);
  }
  return kib / 1024;
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
  return text.split(' ').filter(Boolean).map(Number);
}
