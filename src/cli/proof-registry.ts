import { Registry } from 'prom-client';
import type { Config } from '../config/schema.ts';
import type { ByteBudget } from '../registry/byte-budget.ts';
import { ManifestCache } from '../registry/manifest-cache.ts';
import { Policies } from '../policy/policy.ts';
import { AssumedOutages } from '../registry/proof/assumed-outage.ts';
import { ProofReports } from '../registry/proof/proof-reports.ts';
import { createRegistryMetrics } from '../registry/registry-metrics.ts';
import { RegistryServer, type Routing } from '../registry/registry-server.ts';
import { TagRecorder } from '../registry/tag-recorder.ts';
import type { Upstreams } from '../registry/upstream/upstreams.ts';
import type { AgentClient } from '../rpc/agent-client.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { createPulls } from './pulls.ts';
import type { Service } from './service-group.ts';

/** Requests of proofs at a time: they shall not take what pulls need. */
const MAX_STREAMS = 8;

/** A registry for proofs, and how it learns of changed settings. */
export interface ProofRegistry {
  readonly service: Service;
  readonly reroute: (routing: Routing) => void;
}

/**
 * The registry of a node that has only just been added, in an outage of every upstream: the code of
 * every other pull, with nothing in memory, upstreams that are assumed to be dead, and nobody told
 * of what is asked. It listens on a unix socket of its own, for `salvor report --prove`; it never
 * sends anything to an upstream, and shares with the registry that containerd asks only its agent,
 * its connections to nodes and its bound on bytes in flight.
 *
 * @param options.socket where it listens
 * @param parts.config what counts at the moment
 */
export function proofRegistry(
  options: { readonly socket: string },
  parts: {
    readonly config: () => Config['registry'];
    readonly agent: AgentClient | undefined;
    readonly pool: AgentPool | undefined;
    readonly upstreams: Pick<Upstreams, 'allows'>;
    readonly budget: ByteBudget;
    readonly metrics: Registry;
    readonly log: Logger;
  },
): ProofRegistry {
  const { budget, config, log, upstreams } = parts;
  const { budgets, defaultUpstream, limits, policies } = config();
  // A new node remembers nothing, and what a proof has read must not answer the next one.
  const cache = new ManifestCache({ maxBytes: 0, consentMs: 0 });
  const recorder = new TagRecorder({ agent: undefined, log });
  const pulls = createPulls(
    { budgets, limits },
    { agent: parts.agent, pool: parts.pool, abortsIngests: false, cache, recorder, budget, log },
  );
  const server = new RegistryServer(
    { limits: { ...limits, maxStreams: MAX_STREAMS }, defaultUpstream, takesPlatform: true },
    {
      upstreams: new AssumedOutages({
        allows: (name) => upstreams.allows(name),
        peersOf: (name) => config().upstreams[name]?.peers ?? 'fallback',
      }),
      ...pulls,
      policies: new Policies(policies),
      // Counted apart, by the reports.
      metrics: createRegistryMetrics(new Registry(), { configured: () => [], upstreams: () => [] }),
      budget,
      reports: new ProofReports({ register: parts.metrics, log }),
      log,
    },
  );
  return {
    service: listeningAt(options.socket, server, log),
    reroute: (routing) => server.reroute(routing),
  };
}

function listeningAt(socket: string, server: RegistryServer, log: Logger): Service {
  return {
    name: 'proof registry',
    start: async () => {
      try {
        await server.listenUnix(socket);
        log.info({ socket }, 'registry listens for proofs');
      } catch (error) {
        // Pulls must not depend on it.
        log.warn(
          { socket, err: error },
          'cannot listen for proofs: salvor report --prove will fail',
        );
      }
    },
    stop: async ({ signal }) => server.close({ signal }),
  };
}
