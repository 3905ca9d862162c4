import { isIP } from 'node:net';
import { joinAddress } from '../rpc/address.ts';
import type { Family } from './own-address.ts';
import type { Member } from './membership.ts';

/** The part of discovery.k8s.io/v1 EndpointSlice that is read; nothing of it is sure. */
export interface EndpointSlice {
  readonly metadata?: { readonly name?: string; readonly resourceVersion?: string };
  readonly addressType?: string;
  readonly endpoints?: readonly Endpoint[] | null;
  readonly ports?:
    readonly { readonly name?: string | null; readonly port?: number | null }[] | null;
}

interface Endpoint {
  readonly addresses?: readonly string[];
  readonly conditions?: { readonly ready?: boolean | null };
  readonly nodeName?: string | null;
  readonly zone?: string | null;
  readonly targetRef?: { readonly name?: string } | null;
}

export interface MergeOptions {
  /** Whose address is taken of a node that has both. */
  readonly family: Family;
  /** The port where slices name none. */
  readonly defaultPort: number;
}

/** Name of the Service's port at which agents listen for each other; else its first one. */
export const PORT_NAME = 'peers';

interface Candidate {
  readonly member: Member;
  readonly rank: number;
}

/**
 * One member for each node that is an endpoint of any of the slices, ready or not: readiness says
 * nothing about the bytes that a node holds. Of several addresses of a node the preferred family
 * wins, then a ready endpoint, then the lower address, so that every node chooses alike.
 */
export function membersOf(slices: Iterable<EndpointSlice>, options: MergeOptions): Member[] {
  const best = new Map<string, Candidate>();
  for (const slice of slices) {
    for (const endpoint of slice.endpoints ?? []) {
      const candidate = candidateOf(slice, endpoint, options);
      if (candidate === undefined) continue;
      const { name } = candidate.member;
      const known = best.get(name);
      if (known === undefined || isBetter(candidate, known)) best.set(name, candidate);
    }
  }
  return [...best.values()].map(({ member }) => member).sort((a, b) => (a.name < b.name ? -1 : 1));
}

function candidateOf(
  slice: EndpointSlice,
  endpoint: Endpoint,
  { family, defaultPort }: MergeOptions,
): Candidate | undefined {
  // Consumers are to use the first address alone: EndpointSlice API, field addresses.
  const host = endpoint.addresses?.[0] ?? '';
  const version = isIP(host);
  if (version === 0) return undefined;
  const ports = slice.ports ?? [];
  const port = (ports.find(({ name }) => name === PORT_NAME) ?? ports[0])?.port ?? defaultPort;
  const address = joinAddress(host, port);
  const name = endpoint.nodeName ?? endpoint.targetRef?.name ?? address;
  const isPreferred = (version === 6) === (family === 'IPv6');
  const isReady = endpoint.conditions?.ready !== false;
  return {
    member: { name, address, ...(endpoint.zone && { zone: endpoint.zone }) },
    rank: (isPreferred ? 2 : 0) + (isReady ? 1 : 0),
  };
}

function isBetter(candidate: Candidate, known: Candidate): boolean {
  if (candidate.rank !== known.rank) return candidate.rank > known.rank;
  return candidate.member.address < known.member.address;
}
