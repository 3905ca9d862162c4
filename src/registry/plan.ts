import { allowsPeers, type PullPolicy } from '../policy/policy.ts';

/** How content that its digest names is to be asked for. */
export interface Plan {
  /** The upstream, unless it is known not to answer, or policy wants nodes to spare it. */
  readonly first: 'upstream' | 'peers';
  /** Whether nodes may be asked at all. */
  readonly peers: boolean;
}

/** Decides whom to ask, and in which order. */
export function planFor(policy: PullPolicy, upstream: { readonly isDown: boolean }): Plan {
  const peers = allowsPeers(policy);
  const first = peers && (upstream.isDown || policy.peers === 'prefer') ? 'peers' : 'upstream';
  return { first, peers };
}
