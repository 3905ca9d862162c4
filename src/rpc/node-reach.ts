import { create } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';

import { safeNumber } from './agent-protocol.ts';
import { ReachResponseSchema, type ReachResponse } from './gen/salvor/agent/v1/agent_pb.ts';

/** Whether one node can ask another. */
export interface MemberReach {
  readonly node: string;
  /** "host:port" */
  readonly address: string;
  /** Why not; empty when it can. */
  readonly failure: string;
}

/** Which members a node can ask, and what else it says of itself for those who look for faults. */
export interface NodeReach {
  readonly node: string;
  /** By its own clock, milliseconds since the epoch. */
  readonly atMs: number;
  readonly members: readonly MemberReach[];
  /** In the last hour. */
  readonly pullsSeen: number;
  readonly pullsBypassed: number;
}

export function reachToMessage(reach: NodeReach): ReachResponse {
  return create(ReachResponseSchema, {
    node: reach.node,
    at: timestampFromMs(reach.atMs),
    members: reach.members.map(({ node, address, failure }) => ({ node, address, failure })),
    pullsSeen: BigInt(reach.pullsSeen),
    pullsBypassed: BigInt(reach.pullsBypassed),
  });
}

/** @throws for numbers that no agent would send */
export function reachFromMessage(message: ReachResponse): NodeReach {
  return {
    node: message.node,
    atMs: message.at === undefined ? 0 : timestampMs(message.at),
    members: message.members.map(({ node, address, failure }) => ({ node, address, failure })),
    pullsSeen: safeNumber(message.pullsSeen),
    pullsBypassed: safeNumber(message.pullsBypassed),
  };
}
