import type { DirectoryNode } from '../../support/directory-node.ts';
import { openFileDescriptors } from '../../support/leaks.ts';
import { get } from '../../support/oci-client.ts';
import { waitFor } from '../../support/wait.ts';
import type { CellResult } from './run-cell.ts';

/** Descriptors that may come and go: a probe that is under way, a log that is written. */
const slackDescriptors = 8;
/** Idle connections to upstreams are kept for 15 s. */
const settleTimeoutMs = 25_000;

/** What a process has open, as itself and as the system sees it. */
interface Open {
  readonly descriptors: number;
  readonly streams: number;
  readonly timers: number;
  readonly outages: number;
}

/**
 * Remembers what processes have open before the cells; the returned function tells, when the
 * cells are done, what is left of them.
 */
export async function leftovers(options: {
  readonly scene: string;
  /** The first is the one that is asked; of the others, only the agent runs. */
  readonly nodes: readonly DirectoryNode[];
  /** How many nodes there are to keep a connection to. */
  readonly peers: number;
}): Promise<
  (after: {
    /** Upstreams that never come back: each has one timer of its own. */
    readonly outagesLeft: number;
    readonly closeAll: () => Promise<void>;
  }) => Promise<readonly CellResult[]>
> {
  const { scene, nodes, peers } = options;
  const mostDescriptors = slackDescriptors + peers;
  const [asked] = nodes;
  if (asked === undefined) throw new Error('Cannot look at no nodes');
  const before = await look(asked);
  const agentsBefore = await Promise.all(nodes.map(({ agent }) => openFileDescriptors(agent.pid)));
  return async ({ outagesLeft, closeAll }) => {
    let now = await look(asked);
    const recovered = async (): Promise<boolean> => {
      now = await look(asked);
      return now.outages <= outagesLeft && now.streams === 0;
    };
    await waitFor(recovered, { timeoutMs: settleTimeoutMs }).catch(() => undefined);
    const { outages, streams } = now;
    await closeAll();
    const settled = async (): Promise<boolean> => {
      now = await look(asked);
      return now.descriptors <= before.descriptors + mostDescriptors;
    };
    await waitFor(settled, { timeoutMs: settleTimeoutMs }).catch(() => undefined);
    const agents = await Promise.all(
      nodes.map(async ({ agent }, index) => {
        const count = await openFileDescriptors(agent.pid);
        return count - (agentsBefore[index] ?? 0);
      }),
    );
    const line = (what: string, value: number, most: number): CellResult => ({
      name: `fault.left.${what}.${scene}`,
      value,
      unit: 'count',
      baseline: null,
      ratio: null,
      n: 1,
      must: `<=${most}`,
      ok: value <= most,
      servable: true,
      outcomes: {},
      totalMs: 0,
    });
    return [
      line('streams', streams, 0),
      line('outages', outages, outagesLeft),
      line('descriptors', now.descriptors - before.descriptors, mostDescriptors),
      line('agent_descriptors', Math.max(...agents), mostDescriptors),
      line('timers', now.timers - before.timers, outagesLeft + slackDescriptors),
    ];
  };
}

async function look(node: DirectoryNode): Promise<Open> {
  const { body } = await get(`http://127.0.0.1:${node.adminPort}/metrics`);
  const text = body.toString('utf8');
  const valueOf = (pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? 0);
  const inOutage = text.match(/^salvor_registry_upstream_outage\{[^}]*\} 1$/gm) ?? [];
  return {
    descriptors: await openFileDescriptors(node.registry.pid),
    streams: valueOf(/^salvor_registry_streams (\d+)/m),
    outages: inOutage.length,
    timers: valueOf(/^nodejs_active_resources\{type="Timeout"\} (\d+)/m),
  };
}
