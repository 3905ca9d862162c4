import { parseDigest } from '../../oci/digest.ts';
import type { Digest } from '../../oci/digest.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { Manifest } from '../../oci/manifest.ts';
import type { ContentStore, StoreCallOptions } from '../store.ts';
import type { BlobLabels, ImageName, ImageStore } from './local-images.ts';
import type { StoredManifests } from './stored-manifests.ts';

/** The images of a containerd, for the walk over all of them. */
export class ContainerdImages implements ImageStore {
  readonly #client: Pick<ContainerdClient, 'images' | 'containers' | 'info'>;
  readonly #manifests: Pick<StoredManifests, 'read'>;
  readonly #store: Pick<ContentStore, 'stat'>;

  constructor(dependencies: {
    client: Pick<ContainerdClient, 'images' | 'containers' | 'info'>;
    manifests: Pick<StoredManifests, 'read'>;
    store: Pick<ContentStore, 'stat'>;
  }) {
    this.#client = dependencies.client;
    this.#manifests = dependencies.manifests;
    this.#store = dependencies.store;
  }

  stat(digest: Digest, options: StoreCallOptions): ReturnType<ContentStore['stat']> {
    return this.#store.stat(digest, options);
  }

  manifest(digest: Digest, options: StoreCallOptions): Promise<Manifest | undefined> {
    return this.#manifests.read(digest, options);
  }

  async images(options: StoreCallOptions): Promise<readonly ImageName[]> {
    const records = await this.#client.images(options);
    return records.flatMap(({ name, target }): ImageName[] => {
      const digest = parseDigest(target?.digest ?? '');
      const sizeBytes = Number(target?.size);
      // An odd record hides no other.
      if (target === undefined || !digest.ok || !(sizeBytes > 0)) return [];
      return [{ name, digest: digest.value, mediaType: target.mediaType, sizeBytes }];
    });
  }

  async namesInUse(options: StoreCallOptions): Promise<ReadonlySet<string>> {
    const containers = await this.#client.containers(options);
    return new Set(containers.map(({ image }) => image));
  }

  async labels(digest: Digest, options: StoreCallOptions): Promise<BlobLabels | undefined> {
    return (await this.#client.info(digest, options))?.labels;
  }
}
