import { LRUCache } from 'lru-cache';
import {
  isJsonObject,
  readPlatform,
  type Descriptor,
  type Platform,
} from '../../oci/descriptor.ts';
import type { Digest } from '../../oci/digest.ts';
import { MAX_MANIFEST_SIZE_BYTES, parseManifest, type Manifest } from '../../oci/manifest.ts';
import { readWhole } from '../read-blob.ts';
import type { ContentStore, StoreCallOptions } from '../store.ts';

/** What a digest was found to hold. */
export type ReadOutcome<T> =
  | { readonly value: T }
  /** Why it cannot be read; `isWrong` when its bytes are not those of the digest. */
  | { readonly problem: string; readonly isWrong?: boolean };

/** How many descriptors are remembered over all manifests: some 60 MB. */
const DEFAULT_MAX_DESCRIPTORS = 200_000;
const MAX_CONFIGS = 10_000;

/**
 * Reads manifests and the platforms of configs from a store. What a digest names cannot change,
 * so each is read and hashed once; what could not be read is tried again.
 */
export class ManifestReader {
  readonly #store: Pick<ContentStore, 'open'>;
  readonly #manifests: LRUCache<Digest, Manifest>;
  readonly #platforms = new LRUCache<Digest, { readonly platform: Platform | undefined }>({
    max: MAX_CONFIGS,
  });

  constructor(
    options: { readonly maxDescriptors?: number },
    dependencies: { store: Pick<ContentStore, 'open'> },
  ) {
    this.#store = dependencies.store;
    this.#manifests = new LRUCache({
      maxSize: options.maxDescriptors ?? DEFAULT_MAX_DESCRIPTORS,
      sizeCalculation: (manifest) =>
        2 + (manifest.kind === 'index' ? manifest.manifests : manifest.layers).length,
    });
  }

  /**
   * @param descriptor what is said of it; the bytes count more
   * @throws StoreUnavailableError
   */
  async manifest(
    descriptor: Pick<Descriptor, 'digest' | 'mediaType'>,
    options: StoreCallOptions,
  ): Promise<ReadOutcome<Manifest>> {
    const { digest, mediaType } = descriptor;
    const known = this.#manifests.get(digest);
    if (known !== undefined) return { value: known };
    const read = await this.#bytes(digest, options);
    if ('problem' in read) return read;
    const stated = parseManifest(read.value, mediaType);
    const parsed = stated.ok ? stated : parseManifest(read.value);
    if (!parsed.ok) return { problem: `${digest} is no manifest: ${parsed.reason}` };
    this.#manifests.set(digest, parsed.value);
    return { value: parsed.value };
  }

  /**
   * What a config says that the image runs on.
   *
   * @returns undefined when it does not say, or cannot be read
   * @throws StoreUnavailableError
   */
  async platform(config: Digest, options: StoreCallOptions): Promise<Platform | undefined> {
    const known = this.#platforms.get(config);
    if (known !== undefined) return known.platform;
    const read = await this.#bytes(config, options);
    if ('problem' in read) return undefined;
    const platform = platformOf(read.value);
    this.#platforms.set(config, { platform });
    return platform;
  }

  async #bytes(digest: Digest, options: StoreCallOptions): Promise<ReadOutcome<Buffer>> {
    const blob = await this.#store.open(digest, options);
    if (blob === undefined) return { problem: `${digest} is not there` };
    try {
      if (blob.sizeBytes > MAX_MANIFEST_SIZE_BYTES) {
        return { problem: `${digest} has ${blob.sizeBytes} bytes, too many for a manifest` };
      }
      const bytes = await readWhole(blob);
      if (bytes !== undefined) return { value: bytes };
      return { problem: `the bytes of ${digest} are not those that it names`, isWrong: true };
    } catch (error) {
      options.signal?.throwIfAborted();
      const text = error instanceof Error ? error.message : String(error);
      return { problem: `${digest} cannot be read: ${text}` };
    } finally {
      await blob.close();
    }
  }
}

function platformOf(bytes: Buffer): Platform | undefined {
  try {
    const json: unknown = JSON.parse(bytes.toString());
    const platform = isJsonObject(json) ? readPlatform(json) : undefined;
    return platform?.os === '' || platform?.architecture === '' ? undefined : platform;
  } catch {
    return undefined;
  }
}
