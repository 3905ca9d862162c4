// A process that writes or restores hosts.toml files, as the command does, and ends or stops itself at
// a given step:
// node hosts-child.ts write|restore <root of certs.d> <state directory> <step> [SIGKILL|SIGSTOP]
import { waitingClock } from '../../src/cli/waiting-clock.ts';
import { containerdRelease } from '../../src/node/containerd-config/containerd-release.ts';
import { HostsLock } from '../../src/node/hosts/hosts-lock.ts';
import { planHosts } from '../../src/node/hosts/hosts-plan.ts';
import { InstallState } from '../../src/node/hosts/install-record.ts';
import { install } from '../../src/node/hosts/install.ts';
import { restore } from '../../src/node/hosts/restore.ts';

const [verb, root = '', directory = '', step = '', end = 'SIGKILL'] = process.argv.slice(2);
let left = Number(step);
const onStep = (): void => {
  left -= 1;
  if (left === 0) process.kill(process.pid, end);
};
const state = new InstallState({ directory: `${directory}/hosts` }, { onStep });
await using _lock = await HostsLock.acquire(
  { directory, what: `hosts-child ${verb ?? ''}`, waitMs: 0, signal: AbortSignal.timeout(10_000) },
  { clock: waitingClock },
);
const upstreamDirectory = `${directory}/upstreams`;
if (verb === 'restore') {
  await restore({ upstreamDirectory }, { state, onStep });
} else {
  const plan = await planHosts(
    { roots: [root], mirrorUrl: 'http://127.0.0.1:7480', release: containerdRelease('2.2.0') },
    { state, check: async () => [] },
  );
  await install(plan, { upstreamDirectory }, { state, onStep });
}
