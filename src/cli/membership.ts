import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Config } from '../config/schema.ts';
import { MemberFile } from '../discovery/member-file.ts';
import { MemberList } from '../discovery/member-list.ts';
import type { Member, Membership, MembershipStatus } from '../discovery/membership.ts';
import { selfCheck } from '../discovery/own-address.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { MemberFeed } from './member-feed.ts';
import type { Service } from './service-group.ts';

const MAX_MEMBERS = 4096;

type MembersConfig = Config['agent']['members'];

/** Whom the agent takes for the other nodes. */
export interface NodeMembership extends Membership {
  readonly service: Service;
  /** Takes over changed settings; another source begins with the members of the last one. */
  apply(config: MembersConfig): void;
  status(): MembershipStatus;
}

/**
 * The membership that the configuration asks for.
 *
 * @param dependencies.onChange told who belongs to the cluster whenever that has changed
 */
export function nodeMembership(
  config: Pick<Config, 'node' | 'agent'>,
  dependencies: {
    readonly log: Logger;
    readonly metrics: Registry;
    readonly onChange: (members: readonly Member[]) => void;
  },
): NodeMembership {
  const { log } = dependencies;
  const { listen } = config.agent;
  const path = join(config.node.stateDirectory, 'members.json');
  const file = new MemberFile({ path, maxMembers: MAX_MEMBERS }, { log, clock: systemClock });
  const isSelf = selfCheck({ name: config.node.name, listen });
  const list = new MemberList(
    { isSelf, maxMembers: MAX_MEMBERS },
    { clock: systemClock, log, file, onChange: dependencies.onChange },
  );
  const troubles = createMembershipMetrics(dependencies.metrics, list);
  const feedParts = { listen, list, log, onTrouble: (kind: string) => troubles.inc({ kind }) };
  let current = config.agent.members;
  let feed: MemberFeed | undefined;
  let work: Promise<void> = Promise.resolve();
  if (current.source === 'static') list.replace(current.static, { isFinal: true });
  const begin = async (members: MembersConfig): Promise<void> => {
    await feed?.stop();
    feed = undefined;
    const source = nameOfSource(members);
    if (members.source === 'static') {
      list.describe(source);
      list.replace(members.static, { isFinal: true });
      return;
    }
    await list.begin(source);
    // A list in the configuration needs none of it, and every node would pay for it in memory.
    const { startFeed } = await import('./member-feed.ts');
    feed = startFeed(members, feedParts);
  };
  return {
    members: () => list.members(),
    get zone() {
      return list.zone;
    },
    status: () => list.status(),
    apply: (members) => {
      if (isDeepStrictEqual(members, current)) return;
      current = members;
      work = work
        .then(() => begin(members))
        .catch((error: unknown) => {
          const message = 'Cannot learn of members anew: the last list stays; restart the agent';
          log.error({ err: error, source: nameOfSource(members) }, message);
        });
    },
    service: {
      name: 'membership',
      start: () => {
        const started = work.then(() => begin(current));
        // Whoever starts it learns of a failure; what comes after it is not held up.
        work = started.catch(() => undefined);
        return started;
      },
      stop: async () => {
        await work;
        await feed?.stop();
        await file.close();
      },
    },
  };
}

function nameOfSource({ source, kubernetes, dns }: MembersConfig): string {
  if (source === 'kubernetes') return `kubernetes ${kubernetes.namespace}/${kubernetes.service}`;
  return source === 'dns' ? `dns ${dns.name}` : source;
}

/**
 * Registers the metrics of membership.
 *
 * @returns the counter of failures to learn who the members are
 */
export function createMembershipMetrics(
  register: Registry,
  list: Pick<MemberList, 'status'>,
): Counter<'kind'> {
  const registers = [register];
  const gauges: readonly [string, string, (status: MembershipStatus) => number | undefined][] = [
    ['salvor_agent_members', 'Other nodes that this agent knows of.', ({ count }) => count],
    [
      'salvor_agent_members_kept',
      'Of these, nodes that the source of the list no longer names.',
      ({ kept }) => kept,
    ],
    [
      'salvor_agent_members_confirmed_timestamp_seconds',
      'When the list of members was last confirmed, in seconds since the epoch; 0: never.',
      ({ source, confirmedAtMs }) =>
        (source === 'static' ? Date.now() : (confirmedAtMs ?? 0)) / 1000,
    ],
  ];
  for (const [name, help, valueOf] of gauges) {
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers,
      collect: () => gauge.set(valueOf(list.status()) ?? 0),
    });
  }
  const troubles = new Counter({
    name: 'salvor_agent_members_errors_total',
    help: 'Failures to learn who the members are: list, watch, expired (a watch began anew), dns.',
    labelNames: ['kind'],
    registers,
  });
  for (const kind of ['list', 'watch', 'expired', 'dns']) troubles.inc({ kind }, 0);
  return troubles;
}
