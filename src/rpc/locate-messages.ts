import { create } from '@bufbuild/protobuf';
import type { Digest } from '../oci/digest.ts';
import { safeNumber, tagFromMessage, type TagStatement } from './agent-protocol.ts';
import {
  LocateRequestSchema,
  type Holder,
  type LocateRequest,
  type LocateResponse,
} from './gen/salvor/agent/v1/agent_pb.ts';

/** What can be looked up: a digest, or "registry/repository:tag". */
export type LocateKey = { readonly digest: Digest } | { readonly name: string };

/** A node that has what was looked for. */
export interface LocatedHolder {
  readonly node: string;
  /** "host:port" of its agent; empty for the node's own. */
  readonly address: string;
  readonly sizeBytes: number;
  readonly verified: boolean;
  readonly busy: boolean;
  readonly tags: readonly TagStatement[];
  /** The registry that was asked for has once answered that node. */
  readonly registrySeen: boolean;
  /** In another failure zone than this node, where both zones are known. */
  readonly far: boolean;
}

/** How many nodes were asked for a key, and how many of them gave no answer in time. */
export interface LocateSummary {
  readonly asked: number;
  readonly failed: number;
  /** The names of those that failed; left out by agents that do not tell. */
  readonly silent?: readonly string[];
}

/** A lookup that is made once more, since nodes gave no answer. */
export interface SecondLook {
  /** Whom to ask, by name; none: everybody. */
  readonly nodes: readonly string[];
  /** For how long who gives no answer is asked again, milliseconds. */
  readonly waitMs: number;
}

/** An agent takes requests of 64 KiB at most: where so many are silent, all are asked. */
const MAX_NAMES_BYTES = 32 * 1024;

/** What an agent says while it looks. */
export type LocateEvent = { readonly holder: LocatedHolder } | { readonly summary: LocateSummary };

export function locateToMessage(key: LocateKey, again: SecondLook | undefined): LocateRequest {
  return create(LocateRequestSchema, {
    key:
      'digest' in key ? { case: 'digest', value: key.digest } : { case: 'name', value: key.name },
    ...(again && {
      nodes: again.nodes.join().length > MAX_NAMES_BYTES ? [] : [...again.nodes],
      waitMs: Math.ceil(again.waitMs),
    }),
  });
}

/** @returns undefined for what this version does not know */
export function locateFromMessage({ event }: LocateResponse): LocateEvent | undefined {
  if (event.case === 'holder') return { holder: holderFromMessage(event.value) };
  if (event.case !== 'summary') return undefined;
  const { asked, failed, silent } = event.value;
  return { summary: { asked, failed, silent } };
}

function holderFromMessage(holder: Holder): LocatedHolder {
  return {
    node: holder.node,
    address: holder.address,
    sizeBytes: safeNumber(holder.sizeBytes),
    verified: holder.verified,
    busy: holder.busy,
    tags: holder.tags.map(tagFromMessage).filter((tag) => tag !== undefined),
    registrySeen: holder.registrySeen,
    far: holder.far,
  };
}
