import { credentials } from '@grpc/grpc-js';

import type { Config } from '../config/schema.ts';
import type { Facts, MemberAnswer } from '../node/doctor/facts.ts';
import { AgentClient } from '../rpc/agent-client.ts';
import { AgentError } from '../rpc/agent-error.ts';
import { AgentPool } from '../rpc/agent-pool.ts';
import { MutualChannelCredentials } from '../rpc/channel-credentials.ts';
import { readIdentity } from '../rpc/identity.ts';
import type { NodeReach } from '../rpc/node-reach.ts';

/** An agent asks its members sixteen at a time, two seconds each. */
const REACH_TIMEOUT_MS = 60_000;
const MAX_AT_ONCE = 16;

/** Where the agent of this node is asked. */
export function socketOf(config: Pick<Config, 'registry' | 'agent'>): string {
  const { agentSocket } = config.registry;
  return agentSocket === '' ? config.agent.socket : agentSocket;
}

/** The agent of this node, by its socket. The caller closes it. */
export function ownAgent(config: Pick<Config, 'registry' | 'agent'>): AgentClient {
  const { windowBytes } = config.agent.limits;
  return new AgentClient(
    { target: `unix:${socketOf(config)}`, name: 'the own agent', windowBytes },
    { credentials: credentials.createInsecure() },
  );
}

/**
 * Has this node's agent, and every member's, say whom it can ask.
 *
 * @param options.isCluster members are asked for all others, too, not for this node alone
 * @throws when the own agent or the identity of this node cannot be used
 */
export async function gatherReach(
  config: Pick<Config, 'node' | 'registry' | 'agent' | 'tls'>,
  options: { readonly isCluster: boolean; readonly signal: AbortSignal },
): Promise<Facts['reach']> {
  const { isCluster, signal } = options;
  const limits = { timeoutMs: REACH_TIMEOUT_MS, signal };
  const agent = ownAgent(config);
  const own = await agent.reach([], limits).finally(() => agent.close());
  const pool = new AgentPool(
    { windowBytes: config.agent.limits.windowBytes, maxClients: own.members.length + 1 },
    {
      credentials:
        config.tls.mode === 'off'
          ? credentials.createInsecure()
          : new MutualChannelCredentials(await readIdentity(config.tls)),
    },
  );
  const wanted = isCluster ? [] : [config.node.name];
  const waiting = own.members.filter(({ failure }) => failure === '');
  const others: MemberAnswer[] = [];
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { node, address } = next;
      const client = pool.client(address, node);
      others.push({ node, address, ...(await ask(() => client.reach(wanted, limits))) });
    }
  };
  try {
    await Promise.all(Array.from({ length: MAX_AT_ONCE }, work));
  } finally {
    pool.close();
  }
  return { own, others, isCluster };
}

async function ask(
  reach: () => Promise<NodeReach>,
): Promise<Pick<MemberAnswer, 'reach' | 'failure' | 'isOld' | 'skewMs'>> {
  const askedAtMs = Date.now();
  try {
    const answer = await reach();
    // It looked at its clock at the end, after it had asked others.
    const skewMs = answer.atMs - Date.now();
    const isWithin = answer.atMs >= askedAtMs && skewMs <= 0;
    return { reach: answer, failure: '', isOld: false, skewMs: isWithin ? 0 : skewMs };
  } catch (error) {
    const isOld = error instanceof AgentError && error.kind === 'unimplemented';
    const failure = error instanceof Error ? error.message : String(error);
    return { reach: undefined, failure, isOld, skewMs: undefined };
  }
}
