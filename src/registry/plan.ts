import type { Upstream } from './upstream/upstream.ts';

/**
 * Which side is asked first for content that its digest names. The upstream, unless it is known
 * not to answer, or policy wants nodes to spare it.
 */
export function firstToAsk(upstream: {
  readonly peers: Upstream['peers'];
  readonly health: { readonly outage: unknown };
}): 'upstream' | 'peers' {
  return upstream.health.outage !== undefined || upstream.peers === 'prefer' ? 'peers' : 'upstream';
}
