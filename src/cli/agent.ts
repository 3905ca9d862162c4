import { join } from 'node:path';
import { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdStore } from '../agent/containerd/containerd-store.ts';
import type { SurveyedStore } from '../agent/inventory/survey.ts';
import { ObservationFile } from '../agent/observation-file.ts';
import type { ContentStore } from '../agent/store.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { agentService } from './agent-services.ts';
import type { RunCommand } from './command.ts';
import { nodeIdentity } from './node-identity.ts';
import { processFrame } from './process-frame.ts';

/** How long other nodes' reads may take to end when this process stops, milliseconds. */
const DRAIN_MS = 20_000;

/** `salvor agent`: serves what this node's content store holds. */
export const runAgent: RunCommand = async (config, context) => {
  const { admin, listen, socket } = config.agent;
  const frame = processFrame(config, { role: 'agent', admin, drainMs: DRAIN_MS }, context);
  const { log, metrics } = frame;
  const { store, containerd } = await openStore(config.agent.store, log);
  const identity = await nodeIdentity(config.tls, { role: 'agent', log, metrics });
  const observationFile = new ObservationFile(
    {
      path: join(config.node.stateDirectory, 'observations.db'),
      maxNames: config.agent.limits.observations,
    },
    { log, clock: systemClock },
  );
  const parts = {
    store,
    ...(containerd && { containerd }),
    credentials: identity,
    observationFile,
    proofFile: join(config.node.stateDirectory, 'last-proof.json'),
    metrics,
    log,
  };
  const agent = agentService(config, { listen, socket }, parts);
  await frame.run([...identity.services, ...agent.services], {
    apply: (next) => agent.apply(next),
    pages: {
      '/status': () => ({
        members: agent.members(),
        backfill: agent.backfill(),
        copies: agent.copies(),
        pulls: agent.pulls(),
      }),
      ...agent.pages,
    },
    checks: {
      store: async () => (await store.ready()) || `the ${store.kind} store cannot be asked`,
    },
  });
};

/** The store of the agent, and the way to containerd itself where that is the store. */
async function openStore(
  config: Config['agent']['store'],
  log: Logger,
): Promise<{ store: ContentStore & SurveyedStore; containerd?: ContainerdConnection }> {
  if (config.kind === 'directory') {
    const { DirectoryStore } = await import('../agent/directory/directory-store.ts');
    return { store: await DirectoryStore.open(config.directory, { log }) };
  }
  const { socket: socketPath, namespace, contentPath } = config.containerd;
  const connection = new ContainerdConnection({ socketPath, namespace });
  const store = new ContainerdStore(contentPath === '' ? {} : { contentPath }, { connection, log });
  return { store, containerd: connection };
}
