import { setTimeout as delay } from 'node:timers/promises';
import { isContentGet } from '../faults/matrix/upstream-rows.ts';
import type { DirectoryNode } from '../support/directory-node.ts';
import type { FaultMode } from '../support/fault-proxy.ts';
import type { SeededRandom } from '../support/random.ts';
import type { Schedule } from './schedule.ts';
import type { World } from './world.ts';

const upstreamUpMs = { least: 3000, most: 9000 };
const upstreamDownMs = { least: 2000, most: 8000 };
const nodePauseMs = { least: 3000, most: 9000 };
const stoppedMs = 3000;
const retryAfterSeconds = 1;

function faultModes(random: SeededRandom): FaultMode[] {
  const afterBytes = random.integer(0, 1_000_000);
  const match = isContentGet;
  return [
    { kind: 'refuse' },
    { kind: 'silent' },
    { kind: 'blackhole' },
    { kind: 'answer', status: 503 },
    { kind: 'answer', status: 429, headers: { 'retry-after': String(retryAfterSeconds) } },
    { kind: 'reset' },
    { kind: 'cut', afterBytes, how: random.pick(['fin', 'rst']), match },
    { kind: 'stall', afterBytes, match },
    { kind: 'trickle', bytesPerSecond: 40, part: 'body', match },
  ];
}

/** Lets the registry fail in one way after the other until the signal. */
export async function disturbUpstream(
  { proxy }: World,
  options: {
    readonly random: SeededRandom;
    readonly schedule: Schedule;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { random, schedule, signal } = options;
  while (await pause(random, upstreamUpMs, signal)) {
    const back = schedule.down('upstream', performance.now());
    const mode = random.pick(faultModes(random));
    await proxy.setMode(mode);
    await pause(random, upstreamDownMs, signal);
    await proxy.setMode({ kind: 'pass' });
    // What was swallowed stays swallowed: those who wait on old connections shall not.
    proxy.resetConnections();
    // A registry that asked to be left alone for so long is left alone for so long.
    if (mode.kind === 'answer' && mode.status === 429) await delay(retryAfterSeconds * 1000);
    back(performance.now());
  }
}

/** Kills or stops agents and registries, one after the other, until the signal. */
export async function disturbNodes(
  nodes: readonly DirectoryNode[],
  options: {
    readonly random: SeededRandom;
    readonly schedule: Schedule;
    readonly signal: AbortSignal;
    readonly onRestart: () => void;
  },
): Promise<void> {
  const { random, schedule, signal } = options;
  while (await pause(random, nodePauseMs, signal)) {
    const node = random.pick(nodes);
    const role = random.pick(['agent', 'registry', 'stop'] as const);
    const what = role === 'registry' ? 'registry' : 'agent';
    const back = schedule.down(`${what}/${node.name}`, performance.now());
    if (role === 'stop') {
      await node.agent.kill('SIGSTOP');
      await delay(stoppedMs);
      await node.agent.kill('SIGCONT');
    } else if (role === 'agent') {
      await node.agent.kill('SIGKILL');
      await node.startAgent();
    } else {
      await node.registry.kill('SIGKILL');
      await node.startRegistry();
    }
    if (role !== 'stop') options.onRestart();
    back(performance.now());
  }
}

/** @returns whether there is more to do */
async function pause(
  random: SeededRandom,
  range: { readonly least: number; readonly most: number },
  signal: AbortSignal,
): Promise<boolean> {
  const ms = random.integer(range.least, range.most);
  await delay(ms, undefined, { signal }).catch(() => undefined);
  return !signal.aborted;
}
