import type { Registry } from 'prom-client';
import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import { EventWatch } from '../agent/containerd/event-watch.ts';
import type { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdLeases } from '../agent/containerd/containerd-leases.ts';
import { CopyCount } from '../agent/keeper/copy-count.ts';
import { GuardLeases } from '../agent/keeper/guard-lease.ts';
import { GuardSet } from '../agent/keeper/guard-set.ts';
import { createLastCopiesMetrics } from '../agent/keeper/last-copies-metrics.ts';
import { LastCopies } from '../agent/keeper/last-copies.ts';
import { RuntimeImages } from '../agent/keeper/runtime-images.ts';
import type { Inventories } from '../agent/inventory/inventories.ts';
import type { Config } from '../config/schema.ts';
import type { Membership } from '../discovery/membership.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { contentDisk } from './content-disk.ts';
import type { Service } from './service-group.ts';

/** How long a lease lives by itself; it is replaced when half of that is over. */
const LEASE_LIFETIME_MS = 6 * 3_600_000;
const MAX_GUARDS = 2000;
/** How long a member may take to say all that it holds, and how many are asked at a time. */
const LIST_TIMEOUT_MS = 10_000;
const MEMBERS_AT_ONCE = 4;

/** Last copies as services, and what others may do with it. */
export interface LastCopiesService {
  readonly services: readonly Service[];
  /** Takes over what is reloadable of a changed configuration. */
  readonly apply: (config: Config['agent']) => void;
  /** For the status page. */
  readonly status: () => object;
}

/** Keeps what would become too few in the cluster, on a node that runs containerd. */
export function lastCopiesService(
  config: Pick<Config, 'node' | 'agent'>,
  parts: {
    readonly containerd: ContainerdConnection;
    readonly inventories: Inventories;
    readonly membership: Membership;
    readonly pool: AgentPool;
    readonly metrics: Registry;
    readonly log: Logger;
  },
): LastCopiesService {
  const { inventories, pool, log } = parts;
  const disk = contentDisk(config.agent, parts);
  const client = new ContainerdClient(parts.containerd);
  const leases = new GuardLeases(
    { lifetimeMs: LEASE_LIFETIME_MS, maxGuards: MAX_GUARDS },
    {
      leases: new ContainerdLeases(parts.containerd),
      sizeOf: async (digest, options) => {
        const info = await client.info(digest, options);
        return info === undefined ? undefined : Number(info.size);
      },
      clock: systemClock,
    },
  );
  const copies = new LastCopies(config.agent.copies, {
    selfName: config.node.name,
    images: new RuntimeImages({ client, inventory: () => inventories.current() }),
    guards: new GuardSet({ leases }),
    cluster: new CopyCount(
      {
        selfName: config.node.name,
        memberTimeoutMs: LIST_TIMEOUT_MS,
        maxAtOnce: MEMBERS_AT_ONCE,
      },
      {
        membership: parts.membership,
        list: ({ address, name }, limits) => pool.client(address, name).list(limits),
        log,
      },
    ),
    disk: disk.watch,
    clock: systemClock,
    log,
    metrics: createLastCopiesMetrics(parts.metrics),
    random: Math.random,
  });
  const mark = (): void => copies.mark();
  // Events only make it sooner: what was missed counts as one change.
  const watch = new EventWatch(
    { topics: ['/images/', '/containers/create', '/containers/delete'] },
    { client, clock: systemClock, log, onEvent: mark, onGap: mark },
  );
  const service: Service = {
    name: 'last copies',
    start: async () => {
      watch.start();
      copies.start();
    },
    stop: async () => {
      await watch.stop();
      await copies.stop();
    },
  };
  return {
    services: [disk.service, service],
    apply: (next) => copies.apply(next.copies),
    status: () => copies.status(),
  };
}
