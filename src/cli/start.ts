import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { DirectoryStore } from '../agent/directory/directory-store.ts';
import type { Digest } from '../oci/digest.ts';
import { AgentClient } from '../rpc/agent-client.ts';
import { agentService } from './agent-services.ts';
import type { RunCommand } from './command.ts';
import { keeperOf } from './directory-keeper.ts';
import { plainCredentials } from './node-identity.ts';
import { processFrame } from './process-frame.ts';
import { registryService } from './registry-services.ts';
import type { Service } from './service-group.ts';

/**
 * `salvor start`: one machine, one process. What passes through is kept in a directory, and served
 * from there, tags too, when the network is gone.
 */
export const runStart: RunCommand = async (config, context) => {
  const { admin, listen, store: storeConfig } = config.start;
  const frame = processFrame(
    config,
    { role: 'start', admin, drainMs: config.registry.limits.shutdownMs },
    context,
  );
  const { log, metrics } = frame;
  const store = await DirectoryStore.open(storeConfig, { log });
  const directory = await mkdtemp(join(tmpdir(), 'salvor-'));
  const socket = join(directory, 'agent.sock');
  const agent = new AgentClient(
    {
      target: `unix:${socket}`,
      name: 'the own agent',
      windowBytes: config.agent.limits.windowBytes,
    },
    { credentials: credentials.createInsecure() },
  );
  const parts = {
    store,
    credentials: plainCredentials(),
    // A copy of one's own that is wrong only stands in the way of a right one.
    onCorrupt: (digest: Digest): void => {
      store.remove(digest).catch((error: unknown) => {
        log.warn({ digest, err: error }, 'cannot remove a corrupt blob');
      });
    },
  };
  const connection: Service = {
    name: 'agent connection',
    start: async () => undefined,
    stop: async () => {
      agent.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
  const registry = registryService(
    config.registry,
    { listen, version: context.version, proveSocket: '' },
    { agent, pool: undefined, keeper: keeperOf(store), metrics, log },
  );
  const ownAgent = agentService(config, { listen: undefined, socket }, { ...parts, metrics, log });
  await frame.run([connection, ...ownAgent.services, ...registry.services], {
    checks: { store: async () => store.ready() },
    pages: { ...registry.pages, ...ownAgent.pages },
    apply: (next) => {
      registry.apply(next.registry);
      ownAgent.apply(next);
    },
  });
};
