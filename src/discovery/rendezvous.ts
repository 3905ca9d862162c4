import { createHash } from 'node:crypto';

/** Seven bytes of a hash are more than a number holds exactly, six are not. */
const WEIGHT_BYTES = 6;

/**
 * How strongly a node is drawn to a key, by rendezvous hashing: every node computes the same
 * without asking, the weights of one node do not depend on which others there are, and over many
 * keys every node comes first equally often.
 */
export function rendezvousWeight(key: string, node: string): number {
  return createHash('sha256').update(`${key}\n${node}`).digest().readUIntBE(0, WEIGHT_BYTES);
}

/** The nodes by their weight for a key, the heaviest first; by name where weights are the same. */
export function rendezvousOrder(key: string, nodes: readonly string[]): string[] {
  return nodes
    .map((node) => ({ node, weight: rendezvousWeight(key, node) }))
    .sort((a, b) => b.weight - a.weight || (a.node < b.node ? -1 : 1))
    .map(({ node }) => node);
}
