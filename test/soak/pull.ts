import { setTimeout as delay } from 'node:timers/promises';
import { kinds, type Kind, type Outcome } from '../faults/matrix/cell.ts';
import { ask, type ClientAnswer } from '../faults/matrix/client.ts';
import { judge, requestOf } from '../faults/matrix/judge.ts';
import type { SeededRandom } from '../support/random.ts';
import type { Schedule } from './schedule.ts';
import { registryName, type SoakImage, type World } from './world.ts';

const headersTimeoutMs = 35_000;
const bodyTimeoutMs = 60_000;
const afterFailureMs = 200;
const leaveShare = 0.03;
const leaveAfterMs = 20;

/** A request that was made, and what came of it. */
export interface PullRecord {
  readonly node: string;
  readonly kind: Kind;
  readonly image: SoakImage;
  readonly fromMs: number;
  readonly toMs: number;
  readonly outcome: Outcome;
  readonly reason: string | undefined;
  readonly servable: boolean;
  /** The client left on purpose. */
  readonly left: boolean;
  /** What was down about then. */
  readonly down: readonly string[];
  readonly answer: Pick<ClientAnswer, 'status' | 'headersMs' | 'totalMs' | 'end'>;
}

/**
 * One client: requests one after the other until the signal, whole images as a runtime pulls them
 * and single things.
 */
export async function pullOn(
  world: World,
  options: {
    readonly random: SeededRandom;
    readonly schedule: Schedule;
    readonly signal: AbortSignal;
    readonly record: (pull: PullRecord) => void;
  },
): Promise<void> {
  const { random, record, schedule, signal } = options;
  while (!signal.aborted) {
    const node = random.pick(world.nodes);
    const image = random.pick(world.images);
    const wholeImage: readonly Kind[] = ['tag', 'digest', 'blob'];
    const wanted = random.chance(0.5) ? wholeImage : [random.pick(kinds)];
    for (const kind of wanted) {
      const left = random.chance(leaveShare);
      const { path, headers, right } = requestOf({ kind, registry: registryName, image });
      const method = kind === 'tag' && random.chance(0.5) ? 'HEAD' : 'GET';
      const fromMs = performance.now();
      const answer = await ask({
        method,
        url: node.url + path,
        headers,
        headersTimeoutMs,
        bodyTimeoutMs: left ? leaveAfterMs : bodyTimeoutMs,
      });
      const toMs = performance.now();
      const { outcome, reason } = judge(method, answer, { right });
      const { holders } = image;
      const servable = schedule.isServable({ node: node.name, holders, fromMs, toMs });
      const { status, headersMs, totalMs, end } = answer;
      record({
        node: node.name,
        kind,
        image,
        fromMs,
        toMs,
        outcome,
        reason,
        servable,
        left,
        down: servable ? schedule.around({ fromMs, toMs }) : [],
        answer: { status, headersMs, totalMs, end },
      });
      if (outcome === 'content') continue;
      // A kubelet waits, too; what is refused at once would otherwise be most of all pulls.
      await delay(afterFailureMs);
      break;
    }
  }
}
