import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';

/**
 * Which node gave wrong bytes of which blob, not long ago. The node is asked to look for itself;
 * until it has, this registry takes that blob from others.
 */
export class Quarantine {
  readonly #entries: LRUCache<string, true>;

  /** @param options.ttlMs how long a node is left out for a blob, milliseconds */
  constructor(options: { readonly ttlMs: number; readonly maxEntries: number }) {
    this.#entries = new LRUCache({
      maxSize: options.maxEntries,
      sizeCalculation: () => 1,
      ttl: options.ttlMs,
    });
  }

  add(digest: Digest, node: string): void {
    this.#entries.set(`${digest} ${node}`, true);
  }

  has(digest: Digest, node: string): boolean {
    return this.#entries.has(`${digest} ${node}`);
  }
}
