import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import { parseManifest } from '../oci/manifest.ts';
import type { PassedImage } from '../rpc/agent-client.ts';
import type { CachedManifest } from './manifest-cache.ts';
import type { PartPlace } from './turns.ts';

/** Blobs and manifests whose parents are remembered. */
const MAX_PARTS = 20_000;
/** Parents of one of them: base layers have many. */
const MAX_PARENTS = 8;
/** Children over all manifests that need not be parsed again. */
const MAX_KNOWN_CHILDREN = 20_000;

/** Which images a blob is a part of, as far as their manifests have passed. */
export class ImageParts {
  // A cache with max would take the memory of all its entries at once.
  /** The one that passed last comes first. */
  readonly #parents = new LRUCache<Digest, readonly Digest[]>({
    maxSize: MAX_PARTS,
    sizeCalculation: () => 1,
  });
  readonly #children = new LRUCache<Digest, readonly Digest[]>({
    maxSize: MAX_KNOWN_CHILDREN,
    sizeCalculation: (children) => 1 + children.length,
  });

  /** A manifest or an index has passed. What cannot be read as one has no parts. */
  add({ digest, mediaType, bytes }: CachedManifest): void {
    const children = this.#children.get(digest) ?? childrenOf(bytes, mediaType);
    this.#children.set(digest, children);
    for (const child of children) {
      const others = (this.#parents.get(child) ?? []).filter((parent) => parent !== digest);
      this.#parents.set(child, [digest, ...others].slice(0, MAX_PARENTS));
    }
  }

  /** The images that list this blob; the one whose manifest passed last comes first. */
  imagesOf(blob: Digest): PassedImage[] {
    return (this.#parents.get(blob) ?? []).map((manifest) => ({
      manifest,
      indexes: this.#parents.get(manifest) ?? [],
    }));
  }

  /** Where a blob stands in the image whose manifest passed last of those that list it. */
  placeOf(blob: Digest): PartPlace | undefined {
    const image = this.#parents.get(blob)?.[0];
    const position = image === undefined ? undefined : this.#children.get(image)?.indexOf(blob);
    if (image === undefined || position === undefined || position < 0) return undefined;
    return { image, position };
  }
}

function childrenOf(bytes: Uint8Array, mediaType: string): Digest[] {
  const manifest = parseManifest(bytes, mediaType);
  if (!manifest.ok) return [];
  const { value } = manifest;
  const descriptors =
    value.kind === 'index'
      ? value.manifests
      : [...(value.config === undefined ? [] : [value.config]), ...value.layers];
  return [...new Set(descriptors.map(({ digest }) => digest))];
}
