import type { Digest } from '../../oci/digest.ts';
import { parseDigest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { StoreCallOptions } from '../store.ts';
import { childLabels, REFERENCE_PREFIX } from './child-labels.ts';
import type { StoredManifests } from './stored-manifests.ts';

export interface ManifestFinderOptions {
  /** How many manifests are looked at, at most. */
  readonly maxManifests: number;
  /** How long the list of manifests may be used again, in milliseconds. */
  readonly listAgeMs: number;
  /** How many of the manifests that list a blob are told, at most. */
  readonly maxFound: number;
}

const defaultOptions: ManifestFinderOptions = {
  maxManifests: 5000,
  listAgeMs: 1000,
  maxFound: 16,
};

/**
 * Finds the manifests that list a blob, for when the registry has not seen them pass. Every
 * manifest of an image has a label for its config, discard or not, so that the manifests can be
 * told from all other content; images that are still being pulled are among them.
 */
export class ManifestFinder {
  readonly #options: ManifestFinderOptions;
  readonly #client: Pick<ContainerdClient, 'content'>;
  readonly #manifests: Pick<StoredManifests, 'read'>;
  readonly #clock: Clock;
  #listed: { readonly atMs: number; readonly digests: Promise<readonly Digest[]> } | undefined;

  constructor(
    options: Partial<ManifestFinderOptions>,
    dependencies: {
      client: Pick<ContainerdClient, 'content'>;
      manifests: Pick<StoredManifests, 'read'>;
      clock: Clock;
    },
  ) {
    this.#options = { ...defaultOptions, ...options };
    this.#client = dependencies.client;
    this.#manifests = dependencies.manifests;
    this.#clock = dependencies.clock;
  }

  /** @throws StoreUnavailableError, or the reason of the signal */
  async find(child: Digest, options: StoreCallOptions): Promise<Digest[]> {
    const found: Digest[] = [];
    for (const digest of await this.#list(options)) {
      const manifest = await this.#manifests.read(digest, options);
      const lists =
        manifest !== undefined && childLabels(manifest).some((one) => one.digest === child);
      if (lists) found.push(digest);
      if (found.length >= this.#options.maxFound) break;
    }
    return found;
  }

  /** One list serves all who ask within a short time: a pull asks for many blobs at once. */
  #list(options: StoreCallOptions): Promise<readonly Digest[]> {
    const now = this.#clock.now();
    const last = this.#listed;
    if (last !== undefined && Math.abs(now - last.atMs) < this.#options.listAgeMs) {
      return last.digests;
    }
    const digests = this.#ask(options);
    const listed = { atMs: now, digests };
    this.#listed = listed;
    digests.catch(() => {
      if (this.#listed === listed) this.#listed = undefined;
    });
    return digests;
  }

  async #ask(options: StoreCallOptions): Promise<readonly Digest[]> {
    const digests: Digest[] = [];
    const filters = [`labels."${REFERENCE_PREFIX}config"`];
    for await (const info of this.#client.content({ ...options, filters })) {
      const digest = parseDigest(info.digest);
      if (digest.ok) digests.push(digest.value);
      if (digests.length >= this.#options.maxManifests) break;
    }
    return digests;
  }
}
