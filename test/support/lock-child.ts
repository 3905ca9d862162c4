// A process that takes the lock of `salvor hosts`:
// node lock-child.ts hold <state directory>: says "held", has it until a line comes in
// node lock-child.ts count <state directory> <file> <times>: adds 1 to the number in a file, in a
//   way that loses some if anybody else does so meanwhile
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';

import { waitingClock } from '../../src/cli/waiting-clock.ts';
import { HostsLock } from '../../src/node/hosts/hosts-lock.ts';

const [verb, directory = '', file = '', times = ''] = process.argv.slice(2);
const options = {
  ...{ directory, what: `lock-child ${verb ?? ''}`, waitMs: 20_000 },
  signal: AbortSignal.timeout(30_000),
};
const acquire = (): Promise<HostsLock> =>
  HostsLock.acquire(options, { clock: { ...waitingClock, sleep: () => Promise.resolve() } });

if (verb === 'hold') {
  await using _lock = await acquire();
  process.stdout.write('held\n');
  await once(process.stdin, 'data');
  process.stdin.destroy();
} else {
  for (let round = 0; round < Number(times); round += 1) {
    await using _lock = await acquire();
    const count = Number(await readFile(file, 'utf8'));
    await writeFile(file, String(count + 1));
  }
}
