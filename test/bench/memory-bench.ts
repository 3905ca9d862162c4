import { setTimeout as delay } from 'node:timers/promises';
import { startCluster } from '../support/cluster.ts';
import { Program } from '../support/process.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { startBlobScene, type BlobScene } from './blob-scene.ts';
import { blobReaderArguments, readBlobs } from './load-client.ts';
import { residentMib, summedRssMib } from './process-stats.ts';
import { median, singleResult, type BenchResult } from './result.ts';
import type { BenchContext } from './rounds.ts';
import { startLoneNode } from './salvor-node.ts';

const idleMs = 5000;
const slowReaders = 64;
const slowBytesPerSecond = 100_000;
const slowStartMs = 3000;
const sampleIntervalMs = 50;
const unit = 'MiB';

/** Every name that {@link benchMemory} may give results under. */
export const memoryNames: readonly string[] = [
  'memory.idle',
  'memory.idle.rss',
  'memory.load',
  'memory.load.rss',
];

/** How much memory a registry and an agent take together, at rest and at work. */
export async function benchMemory(context: BenchContext): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  if (memoryNames.slice(0, 2).some(context.wants)) results.push(...(await benchIdle(context)));
  if (memoryNames.slice(2).some(context.wants)) results.push(...(await benchLoad(context)));
  return results;
}

async function benchIdle(context: BenchContext): Promise<BenchResult[]> {
  const samples: Memory[] = [];
  for (let round = 1; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    const memory = await withScope('bench-memory', async (scope) => {
      const pids = await startOneNode(scope, context);
      await delay(idleMs, undefined, { signal: context.signal });
      return measure(pids);
    });
    samples.push(memory);
    context.progress(`memory.idle ${round}/${context.pairs}: ${memory.mib.toFixed(1)} ${unit}`);
  }
  const middle = (pick: (memory: Memory) => number): number => median(samples.map(pick));
  const rounds = samples.length;
  return [
    singleResult(
      { name: 'memory.idle', unit, must: '<=128' },
      middle(({ mib }) => mib),
      rounds,
    ),
    singleResult(
      { name: 'memory.idle.rss', unit },
      middle(({ rssMib }) => rssMib),
      rounds,
    ),
  ];
}

/** Both ways to count the memory of two processes that share their binary. */
interface Memory {
  readonly mib: number;
  readonly rssMib: number;
}

function measure(pids: readonly number[]): Memory {
  return { mib: residentMib(pids), rssMib: summedRssMib(pids) };
}

/** As it runs on a node: over containerd where that can be started, else over a directory. */
async function startOneNode(scope: TestScope, context: BenchContext): Promise<number[]> {
  const { program } = context;
  if (process.getuid?.() === 0) {
    const node = (await startCluster(scope, { nodes: ['idle'], upstreams: {}, program })).node(
      'idle',
    );
    return [node.registry.pid, node.agent.pid];
  }
  const node = await startLoneNode(scope, { name: 'idle', upstreams: {}, program });
  return [node.registry.pid, node.agent.pid];
}

/** The registry that is read from, and the agent that sends to it: both ends of the worst case. */
async function benchLoad(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-load', async (scope) => {
    const scene = await startBlobScene(scope, context);
    const pids = [scene.reader.registry.pid, scene.holder.agent.pid];
    const readers = await startSlowReaders(scope, scene);
    const peaks: Memory[] = [];
    for (let round = 1; round <= context.pairs; round += 1) {
      const peak = await peakDuring(pids, async () => {
        await delay(slowStartMs, undefined, { signal: context.signal });
        for (const source of ['upstream', 'peer'] as const) {
          const plan = scene.salvorPlan(source, scene.big);
          await readBlobs({ ...plan, connections: 1, bytesPerSecond: 0 }, context.signal);
        }
      });
      peaks.push(peak);
      context.progress(
        `memory.load ${round}/${context.pairs}: peak ${peak.mib.toFixed(1)} ${unit}`,
      );
    }
    if (readers.some((reader) => reader.hasExited)) {
      throw new Error('Cannot count this load: the slow readers did not last');
    }
    // The highest of all peaks, not the middle one: memory is a bound, not a speed.
    const highest = (pick: (memory: Memory) => number): number => Math.max(...peaks.map(pick));
    const rounds = peaks.length;
    return [
      singleResult(
        { name: 'memory.load', unit, must: '<=320' },
        highest((at) => at.mib),
        rounds,
      ),
      singleResult(
        { name: 'memory.load.rss', unit },
        highest((at) => at.rssMib),
        rounds,
      ),
    ];
  });
}

/** One half reads through the upstream, the other from the holder, to the end of the scope. */
async function startSlowReaders(scope: TestScope, scene: BlobScene): Promise<Program[]> {
  const readers: Program[] = [];
  for (const source of ['upstream', 'peer'] as const) {
    const plan = scene.salvorPlan(source, scene.big);
    const load = { connections: slowReaders / 2, bytesPerSecond: slowBytesPerSecond };
    const reader = await Program.start(scope, {
      name: `slow-readers-${source}`,
      command: process.execPath,
      arguments: blobReaderArguments({ ...plan, ...load }),
    });
    readers.push(reader);
  }
  return readers;
}

async function peakDuring(pids: readonly number[], work: () => Promise<void>): Promise<Memory> {
  let peak = measure(pids);
  const timer = setInterval(() => {
    const now = measure(pids);
    peak = { mib: Math.max(peak.mib, now.mib), rssMib: Math.max(peak.rssMib, now.rssMib) };
  }, sampleIntervalMs);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return peak;
}
