import { credentials } from '@grpc/grpc-js';
import { SignOfLife } from '../registry/sign-of-life.ts';
import { AgentClient } from '../rpc/agent-client.ts';
import { AgentPool } from '../rpc/agent-pool.ts';
import { mutualChannelCredentials, readIdentity } from '../rpc/identity.ts';
import type { RunCommand } from './command.ts';
import { processFrame } from './process-frame.ts';
import { registryService } from './registry-services.ts';
import type { Service } from './service-group.ts';

const MAX_CONNECTIONS = 512;

/** `salvor registry`: the OCI API that containerd on this node is pointed at. */
export const runRegistry: RunCommand = async (config, context) => {
  const { admin, agentSocket, limits, listen } = config.registry;
  const frame = processFrame(
    config,
    { role: 'registry', admin, drainMs: limits.shutdownMs },
    context,
  );
  const { log, metrics } = frame;
  const { windowBytes } = config.agent.limits;
  const services: Service[] = [];
  let agent: AgentClient | undefined;
  let pool: AgentPool | undefined;
  if (agentSocket !== '') {
    const channel =
      config.tls.mode === 'off'
        ? credentials.createInsecure()
        : mutualChannelCredentials(await readIdentity(config.tls));
    pool = new AgentPool({ windowBytes, maxClients: MAX_CONNECTIONS }, { credentials: channel });
    agent = new AgentClient(
      { target: `unix:${agentSocket}`, name: 'the own agent', windowBytes },
      { credentials: credentials.createInsecure() },
    );
    services.push(agentConnection({ agent, pool, timeoutMs: config.watchdog.timeoutMs, log }));
  }
  const registry = registryService(config.registry, { listen }, { agent, pool, metrics, log });
  services.push(registry.service);
  // Ready without its agent and without any upstream: it answers honestly either way.
  await frame.run(services, { checks: {}, pages: registry.pages });
};

function agentConnection(parts: {
  readonly agent: AgentClient;
  readonly pool: AgentPool;
  readonly timeoutMs: number;
  readonly log: ConstructorParameters<typeof SignOfLife>[1]['log'];
}): Service {
  const { agent, pool, timeoutMs, log } = parts;
  const signs = timeoutMs === 0 ? undefined : new SignOfLife({ timeoutMs }, { agent, log });
  return {
    name: 'agent connection',
    start: async () => signs?.start(),
    stop: async () => {
      signs?.stop();
      pool.close();
      agent.close();
    },
  };
}
