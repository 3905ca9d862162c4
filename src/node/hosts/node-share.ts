import { createHash } from 'node:crypto';

/**
 * Whether the containerd of a node is to ask Salvor, where that is meant for a share of the nodes. The
 * same nodes at every call; a larger share has the smaller one in it.
 *
 * @param percent from 0 to 100
 */
export function isInShare(nodeName: string, percent: number): boolean {
  return placeOf(nodeName) < percent;
}

/** Where a node is among all of them, from 0 to just under 100. */
function placeOf(nodeName: string): number {
  return (createHash('sha256').update(nodeName).digest().readUInt32BE() / 2 ** 32) * 100;
}
