import { isDeepStrictEqual } from 'node:util';
import type { Registry } from 'prom-client';
import type { Config } from '../config/schema.ts';
import type { BlobKeeper } from '../registry/blob-pull.ts';
import { ByteBudget } from '../registry/byte-budget.ts';
import { DecisionLog } from '../registry/decision-log.ts';
import { ImageParts } from '../registry/image-parts.ts';
import { KeepNotices } from '../registry/keep-notices.ts';
import { FirstAnswers } from '../registry/first-answers.ts';
import { ManifestCache } from '../registry/manifest-cache.ts';
import { createRegistryMetrics, type UpstreamState } from '../registry/registry-metrics.ts';
import { Policies } from '../policy/policy.ts';
import type { RegistryRules } from '../policy/registry-rules.ts';
import { registryStatus } from '../registry/registry-status.ts';
import { RegistryServer } from '../registry/registry-server.ts';
import { RequestReports } from '../registry/request-reports.ts';
import { withSelfTest } from '../registry/self-test-upstream.ts';
import { Savings } from '../registry/savings.ts';
import { TagRecorder, type ManifestKeeper } from '../registry/tag-recorder.ts';
import { Turns } from '../registry/turns.ts';
import { Upstreams } from '../registry/upstream/upstreams.ts';
import type { AgentClient } from '../rpc/agent-client.ts';
import type { AdminPage, ReadyCheck } from '../telemetry/admin-server.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { eventLoopLoad } from './event-loop-load.ts';
import type { Service } from './service-group.ts';
import { proofRegistry } from './proof-registry.ts';
import { createPulls } from './pulls.ts';
import { upstreamFactory } from './upstream-factory.ts';

/** How long the upstream's consent to hand out a manifest counts, milliseconds. */
const CONSENT_MS = 60_000;

/** What a registry is joined to. */
export interface RegistrySurroundings {
  /** This node's own agent; without it the registry is a plain pull-through mirror. */
  readonly agent: AgentClient | undefined;
  readonly pool: AgentPool | undefined;
  /** Keeps what passes, where this process is the node's only store. */
  readonly keeper?: BlobKeeper & ManifestKeeper;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** How many decisions are remembered for those who ask why. */
const MAX_DECISIONS = 2000;

/** A registry to run, and what others may do with it. */
export interface RegistryParts {
  /** To be started in this order. */
  readonly services: readonly Service[];
  /** For its admin port. */
  readonly pages: Readonly<Record<string, AdminPage>>;
  /** The same; ready without its agent, since it answers honestly either way. */
  readonly checks: Readonly<Record<string, ReadyCheck>>;
  /**
   * Takes over what is reloadable of a changed configuration.
   *
   * @throws when an upstream cannot be made as it says; nothing has changed then
   */
  readonly apply: (config: Config['registry']) => void;
}

/**
 * The registry as a service, and what it shows on its admin port.
 *
 * @param options.listen "host:port"
 * @param options.version of the program
 * @param options.proveSocket where proofs may be asked for; empty: nowhere
 */
export function registryService(
  config: Config['registry'],
  options: { readonly listen: string; readonly version: string; readonly proveSocket: string },
  surroundings: RegistrySurroundings,
): RegistryParts {
  const { agent, keeper, log } = surroundings;
  const { limits } = config;
  let current = config;
  const metrics = createRegistryMetrics(surroundings.metrics, {
    configured: () => Object.keys(current.upstreams),
    upstreams: () => statesOf(upstreams),
  });
  const budget = new ByteBudget(
    { limitBytes: limits.inFlightBytes },
    { onChange: (usedBytes) => metrics.inFlightBytes.set(usedBytes) },
  );
  const savings = new Savings({ metrics });
  const upstreams: Upstreams = new Upstreams(
    { ...upstreamPolicy(config), drainMs: limits.shutdownMs },
    { create: upstreamFactory(config, { log, metrics }) },
  );
  const cache = new ManifestCache({ maxBytes: limits.manifestCacheBytes, consentMs: CONSENT_MS });
  const recorder = new TagRecorder({ agent, keeper, log });
  const parts = new ImageParts();
  // A store that this process fills itself keeps whole images anyway.
  const notices =
    agent === undefined || keeper !== undefined
      ? undefined
      : new KeepNotices({ agent, parts, log });
  const pulls = createPulls(config, {
    ...{ agent, pool: surroundings.pool, keeper },
    ...{ cache, recorder, notices, budget, log },
  });
  const decisions = new DecisionLog({ maxEntries: MAX_DECISIONS });
  const server = new RegistryServer(
    { limits, defaultUpstream: config.defaultUpstream, version: options.version },
    {
      upstreams: withSelfTest(upstreams),
      ...pulls,
      policies: new Policies(config.policies),
      metrics,
      budget,
      reports: new RequestReports({ decisions, metrics, savings, log }),
      turns: new Turns({
        measureLoad: eventLoopLoad(),
        placeOf: (blob) => parts.placeOf(blob),
      }),
      log,
    },
  );
  const firstAnswers = new FirstAnswers({ names: config.readyAfter }, { upstreams });
  const service: Service = {
    name: 'registry',
    start: async () => {
      const address = await server.listen(options.listen);
      log.info({ address }, 'registry listens');
    },
    stop: async ({ signal }) => {
      await server.close({ signal });
      recorder.close();
      await upstreams.close();
    },
  };
  const proofs =
    options.proveSocket === '' || agent === undefined
      ? undefined
      : proofRegistry(
          { socket: options.proveSocket },
          {
            config: () => current,
            ...{ agent, budget, upstreams, log },
            ...{ pool: surroundings.pool, metrics: surroundings.metrics },
          },
        );
  const apply = (next: Config['registry']): void => {
    const before = current;
    const replaced = upstreams.apply({
      policy: upstreamPolicy(next),
      create: upstreamFactory(next, { log, metrics }),
      isChanged: (name) => !isDeepStrictEqual(settingsOf(before, name), settingsOf(next, name)),
    });
    const { defaultUpstream, policies } = next;
    const routing = { defaultUpstream, policies: new Policies(policies) };
    server.reroute(routing);
    proofs?.reroute(routing);
    firstAnswers.replace(next.readyAfter);
    current = next;
    if (replaced.length > 0) log.info({ registries: replaced }, 'upstreams replaced or given up');
  };
  return {
    services: proofs === undefined ? [service] : [service, proofs.service],
    apply,
    checks: { upstreams: async () => firstAnswers.check() },
    pages: {
      '/status': () => registryStatus({ upstreams, savings, budget }),
      '/decisions': (query) => ({
        decisions: decisions.find(query.get('about') ?? ''),
        since: decisions.since,
      }),
    },
  };
}

/** All that is configured for an upstream. */
function settingsOf({ mirrors, upstreams }: Config['registry'], name: string): unknown {
  return upstreams[name] ?? mirrors;
}

function upstreamPolicy({ allow, deny, upstreams }: Config['registry']): RegistryRules {
  return { allow, deny, configured: Object.keys(upstreams) };
}

function statesOf(upstreams: Upstreams): UpstreamState[] {
  return upstreams.all().map(({ name, outage, endpoints }) => ({
    name,
    outageSinceMs: outage?.sinceMs,
    rateLimitRemaining: endpoints
      .map(({ rateLimit }) => rateLimit?.remaining)
      .filter((remaining) => remaining !== undefined),
  }));
}
