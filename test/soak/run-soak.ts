import { SeededRandom } from '../support/random.ts';
import type { TestScope } from '../support/test-scope.ts';
import { disturbNodes, disturbUpstream } from './disturb.ts';
import { MemoryWatch } from './memory.ts';
import { pullOn, type PullRecord } from './pull.ts';
import { Schedule } from './schedule.ts';
import { startWorld } from './world.ts';

const workers = 5;
/** Connections between nodes come back with a growing pause of up to 2 s. */
const graceMs = 3500;
const mostSlopeMibPerMinute = 6;
const mostResidentMib = 300;

/** One line of the results. */
export interface SoakResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly baseline: null;
  readonly ratio: null;
  readonly n: number;
  readonly must: string;
  readonly ok: boolean;
}

type Figure = Pick<SoakResult, 'value' | 'unit' | 'must' | 'ok'>;

/** What a soak came to. */
export interface SoakReport {
  readonly seed: number;
  readonly results: readonly SoakResult[];
  /** Pulls that are not as they must be. */
  readonly failures: readonly PullRecord[];
}

/**
 * Random pulls from three nodes, while their registry fails in random ways and agents and
 * registries are killed, stopped and started again. Node x stays, so that its memory can be seen.
 *
 * @param options.seed everything random follows from it, but not what the machine's pace decides
 */
export async function runSoak(
  scope: TestScope,
  options: {
    readonly minutes: number;
    readonly seed: number;
    readonly onSecond?: (pulls: number) => void;
  },
): Promise<SoakReport> {
  const { minutes, seed } = options;
  const random = new SeededRandom(seed);
  const world = await startWorld(scope, random);
  const schedule = new Schedule({ graceMs });
  const [steady, ...others] = world.nodes;
  if (steady === undefined) throw new Error('Cannot soak without nodes');
  const memory = {
    registry: new MemoryWatch({ pid: steady.registry.pid, adminPort: steady.adminPort }),
    agent: new MemoryWatch({ pid: steady.agent.pid, adminPort: steady.agentAdminPort }),
  };
  const pulls: PullRecord[] = [];
  let restarts = 0;
  const signal = AbortSignal.timeout(minutes * 60_000);
  const ticking = setInterval(() => options.onSecond?.(pulls.length), 1000);
  const record = (pull: PullRecord): void => void pulls.push(pull);
  const own = (): SeededRandom => new SeededRandom(random.integer(0, 2 ** 31));
  const onRestart = (): void => void (restarts += 1);
  try {
    await Promise.all([
      disturbUpstream(world, { random: own(), schedule, signal }),
      disturbNodes(others, { random: own(), schedule, signal, onRestart }),
      memory.registry.run(signal),
      memory.agent.run(signal),
      ...Array.from({ length: workers }, async () =>
        pullOn(world, { random: own(), schedule, signal, record }),
      ),
    ]);
  } finally {
    clearInterval(ticking);
  }
  return { seed, ...judgeAll(pulls, { memory, restarts, minutes }) };
}

function judgeAll(
  pulls: readonly PullRecord[],
  world: {
    readonly memory: { readonly registry: MemoryWatch; readonly agent: MemoryWatch };
    readonly restarts: number;
    readonly minutes: number;
  },
): Omit<SoakReport, 'seed'> {
  const { memory, restarts, minutes } = world;
  const judged = pulls.filter(({ left }) => !left);
  const servable = judged.filter((pull) => pull.servable);
  const incomplete = servable.filter(({ outcome }) => outcome !== 'content');
  const wrong = pulls.filter(
    ({ outcome, left }) => outcome === 'wrong' || (outcome === 'status' && !left),
  );
  const hangs = pulls.filter(
    ({ outcome, left }) => outcome === 'hang' || (outcome === 'left' && !left),
  );
  const n = pulls.length;
  const line = (name: string, part: Figure): SoakResult => ({
    name: `soak.${name}`,
    baseline: null,
    ratio: null,
    n,
    ...part,
  });
  const share = servable.length / Math.max(1, judged.length);
  const peak = (watch: MemoryWatch): Figure => ({
    value: round(watch.peakMib),
    unit: 'MiB',
    must: `<=${mostResidentMib}`,
    ok: watch.peakMib <= mostResidentMib,
  });
  const slope = (watch: MemoryWatch): Figure => ({
    value: round(watch.slopeMibPerMinute),
    unit: 'MiB/min',
    must: `<=${mostSlopeMibPerMinute}`,
    ok: watch.slopeMibPerMinute <= mostSlopeMibPerMinute,
  });
  const none = (count: number, unit: string): Figure => ({
    value: count,
    unit,
    must: '<=0',
    ok: count === 0,
  });
  const fewest = Math.floor(minutes * 2);
  return {
    results: [
      line('servable', { value: round(share), unit: 'of pulls', must: '>=0.8', ok: share >= 0.8 }),
      line('incomplete', none(incomplete.length, 'servable pulls')),
      line('wrong', none(wrong.length, 'pulls')),
      line('hangs', none(hangs.length, 'pulls')),
      line('restarts', {
        value: restarts,
        unit: 'processes',
        must: `>=${fewest}`,
        ok: restarts >= fewest,
      }),
      line('memory.registry', slope(memory.registry)),
      line('memory.agent', slope(memory.agent)),
      line('resident.registry', peak(memory.registry)),
      line('resident.agent', peak(memory.agent)),
    ],
    failures: [...new Set([...incomplete, ...wrong, ...hangs])],
  };
}

function round(value: number): number {
  return Number(value.toPrecision(3));
}
