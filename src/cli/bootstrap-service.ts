import type { BootstrapRulesOptions } from '../agent/bootstrap/bootstrap-rules.ts';
import type { AgentMetrics } from '../agent/agent-metrics.ts';
import type { BootstrapServer } from '../agent/bootstrap/bootstrap-server.ts';
import type { HeldContent } from '../agent/held-content.ts';
import { ManifestReader } from '../agent/inventory/manifest-reader.ts';
import { RefusedConnections } from '../agent/refused-connections.ts';
import type { ContentStore } from '../agent/store.ts';
import type { Config } from '../config/schema.ts';
import { parseAddress } from '../config/text-format.ts';
import { addressesIn } from '../rpc/identity-roles.ts';
import { certificatesIn } from '../rpc/identity-facts.ts';
import type { ServerIdentity } from '../rpc/server-identity.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Registry } from 'prom-client';

type BootstrapConfig = Pick<Config, 'node' | 'agent' | 'registry'>;

/** What the listener is made of. */
export interface BootstrapParts {
  readonly content: HeldContent;
  readonly store: ContentStore;
  readonly serverIdentity: ServerIdentity;
  readonly agentMetrics: AgentMetrics;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** The listener for nodes that Salvor has not come to yet, or none where it is not configured. */
export interface BootstrapService {
  /** @throws when the address cannot be taken */
  start(): Promise<void>;
  /** Until the signal aborts, running requests may end. */
  stop(options: { readonly signal: AbortSignal }): Promise<void>;
  /** Takes over what is reloadable of a changed configuration. */
  apply(config: Pick<Config, 'agent' | 'registry'>): void;
}

/** Nothing of it is loaded before it starts, nor where it is not configured. */
export function bootstrapService(config: BootstrapConfig, parts: BootstrapParts): BootstrapService {
  const address = parseAddress(config.agent.bootstrap.listen);
  let latest: Pick<Config, 'agent' | 'registry'> = config;
  let running: Awaited<ReturnType<typeof load>> | undefined;
  return {
    start: async () => {
      if (address === undefined) return;
      running = await load({ ...config, ...latest }, parts);
      const port = await running.server.listen(address);
      parts.log.info({ host: address.host, port }, 'agent listens for nodes without Salvor');
      warnOfAddresses(parts.serverIdentity, parts.log);
    },
    stop: async (options) => running?.server.close(options),
    apply: (next) => {
      latest = next;
      running?.take(next);
    },
  };
}

async function load(
  config: BootstrapConfig,
  parts: BootstrapParts,
): Promise<{
  readonly server: BootstrapServer;
  readonly take: (next: Pick<Config, 'agent' | 'registry'>) => void;
}> {
  const [
    { BootstrapServer },
    { BootstrapContent, OWN_FINDINGS },
    { createBootstrapMetrics },
    { BootstrapRules },
    { RepositoryContents },
  ] = await Promise.all([
    import('../agent/bootstrap/bootstrap-server.ts'),
    import('../agent/bootstrap/bootstrap-content.ts'),
    import('../agent/bootstrap/bootstrap-metrics.ts'),
    import('../agent/bootstrap/bootstrap-rules.ts'),
    import('../agent/bootstrap/repository-contents.ts'),
  ]);
  const { maxRequests, clientStallMs } = config.agent.bootstrap;
  const { content, log, store } = parts;
  const clock = systemClock;
  const rules = new BootstrapRules(rulesOf(config));
  const reader = new ManifestReader({}, { store });
  const repositories = new RepositoryContents({ rules }, { content, reader, clock, log });
  const answers = new BootstrapContent({ rules }, { content, repositories, clock });
  const { chunkBytes, maxHandshakes } = config.agent.limits;
  const server = new BootstrapServer(
    { node: config.node.name, maxRequests, maxHandshakes, clientStallMs, chunkBytes },
    {
      content: answers,
      onWrongBytes: (digest) => {
        content.reportCorrupt(digest, { host: OWN_FINDINGS }).catch((error: unknown) => {
          log.warn({ digest, err: error }, 'cannot look again at wrong bytes');
        });
      },
      identity: parts.serverIdentity,
      refused: new RefusedConnections({ log, metrics: parts.agentMetrics }),
      metrics: createBootstrapMetrics(parts.metrics),
      clock,
      log,
    },
  );
  return { server, take: (next) => answers.take(new BootstrapRules(rulesOf(next))) };
}

function rulesOf({ agent, registry }: Pick<Config, 'agent' | 'registry'>): BootstrapRulesOptions {
  const { allow, deny, policies, upstreams } = registry;
  return {
    repositories: agent.bootstrap.repositories,
    registries: { allow, deny, configured: Object.keys(upstreams) },
    policies,
  };
}

/** containerd looks for the address that it dials in the certificate; other agents do not. */
function warnOfAddresses({ certificate }: ServerIdentity, log: Logger): void {
  const [leaf] = certificatesIn(certificate);
  if (leaf !== undefined && addressesIn(leaf.subjectAltName).length > 0) return;
  log.warn(
    {},
    'the certificate of this agent names no address, so that no containerd will accept it: issue ' +
      'it with the addresses of agents, see `salvor certs issue --address`',
  );
}
