import { LRUCache } from 'lru-cache';

import type { Digest } from '../../oci/digest.ts';
import { MAX_MANIFEST_SIZE_BYTES, parseManifest, type Manifest } from '../../oci/manifest.ts';
import { readWhole } from '../read-blob.ts';
import type { ContentStore, StoreCallOptions } from '../store.ts';

/** Descriptors, over all manifests that are remembered. */
const DEFAULT_MAX_CHILDREN = 50_000;

/**
 * Reads manifests out of a store and remembers what they say, which for a digest never changes.
 * Whether the store still has them is another question.
 */
export class StoredManifests {
  readonly #store: Pick<ContentStore, 'open'>;
  readonly #known: LRUCache<Digest, Manifest>;

  /** @param options.maxChildren how many descriptors are remembered, over all manifests */
  constructor(
    options: { readonly maxChildren?: number },
    dependencies: { store: Pick<ContentStore, 'open'> },
  ) {
    this.#store = dependencies.store;
    this.#known = new LRUCache({
      maxSize: options.maxChildren ?? DEFAULT_MAX_CHILDREN,
      sizeCalculation: (manifest) =>
        1 + (manifest.kind === 'index' ? manifest.manifests.length : manifest.layers.length + 1),
    });
  }

  /**
   * @returns undefined when the store does not hold it, or it is no manifest, or its bytes are not
   *   those of the digest
   * @throws StoreUnavailableError, or the reason of the signal
   */
  async read(digest: Digest, options: StoreCallOptions = {}): Promise<Manifest | undefined> {
    const known = this.#known.get(digest);
    if (known !== undefined) return known;
    const blob = await this.#store.open(digest, options);
    if (blob === undefined) return undefined;
    try {
      if (blob.sizeBytes > MAX_MANIFEST_SIZE_BYTES) return undefined;
      const bytes = await readWhole(blob, options);
      if (bytes === undefined) return undefined;
      const manifest = parseManifest(bytes);
      if (!manifest.ok) return undefined;
      this.#known.set(digest, manifest.value);
      return manifest.value;
    } finally {
      await blob.close();
    }
  }
}
