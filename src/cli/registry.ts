import { credentials } from '@grpc/grpc-js';
import { SignOfLife } from '../registry/sign-of-life.ts';
import { AgentClient } from '../rpc/agent-client.ts';
import { AgentPool } from '../rpc/agent-pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { processStart } from '../telemetry/process-start.ts';
import type { RunCommand } from './command.ts';
import { nodeIdentity } from './node-identity.ts';
import { processFrame } from './process-frame.ts';
import { registryService } from './registry-services.ts';
import type { Service } from './service-group.ts';
import { WatchdogSwitch } from './watchdog-switch.ts';

const MAX_CONNECTIONS = 512;

/** `salvor registry`: the OCI API that containerd on this node is pointed at. */
export const runRegistry: RunCommand = async (config, context) => {
  const { admin, agentSocket, limits, listen, proveSocket } = config.registry;
  const frame = processFrame(
    config,
    {
      role: 'registry',
      admin,
      drainMs: limits.shutdownMs,
      isWatchedElsewhere: agentSocket !== '',
    },
    context,
  );
  const { log, metrics } = frame;
  const { windowBytes } = config.agent.limits;
  const services: Service[] = [];
  let agent: AgentClient | undefined;
  let pool: AgentPool | undefined;
  if (agentSocket !== '') {
    const identity = await nodeIdentity(config.tls, { role: 'registry', log, metrics });
    services.push(...identity.services);
    pool = new AgentPool(
      { windowBytes, maxClients: MAX_CONNECTIONS },
      { credentials: identity.channel },
    );
    agent = new AgentClient(
      { target: `unix:${agentSocket}`, name: 'the own agent', windowBytes },
      { credentials: credentials.createInsecure() },
    );
    const { timeoutMs } = config.watchdog;
    const start = await processStart(process.pid);
    services.push(agentConnection({ agent, pool, timeoutMs, processStart: start, log }));
  }
  const registry = registryService(
    config.registry,
    { listen, version: context.version, proveSocket },
    { agent, pool, metrics, log },
  );
  services.push(...registry.services);
  await frame.run(services, {
    checks: registry.checks,
    pages: registry.pages,
    apply: (next) => registry.apply(next.registry),
  });
};

function agentConnection(parts: {
  readonly agent: AgentClient;
  readonly pool: AgentPool;
  readonly timeoutMs: number;
  readonly processStart: string;
  readonly log: Logger;
}): Service {
  const { agent, pool, timeoutMs, log } = parts;
  // The agent is the better watch, since it also sees a process that is stopped as a whole; the
  // thread stands in while there is none, or none that sees this process.
  const thread = new WatchdogSwitch({ timeoutMs }, { log });
  let watched: boolean | undefined;
  const onChange = (isWatched: boolean): void => {
    thread.turn(!isWatched);
    if (isWatched === watched) return;
    watched = isWatched;
    log.info({ by: isWatched ? 'the agent' : 'a thread' }, 'this process is watched');
  };
  const signs = timeoutMs === 0 ? undefined : new SignOfLife(parts, { agent, onChange, log });
  return {
    name: 'agent connection',
    start: async () => signs?.start(),
    stop: async () => {
      signs?.stop();
      await thread.stop();
      pool.close();
      agent.close();
    },
  };
}
