import type { Digest } from '../../oci/digest.ts';
import type { Manifest } from '../../oci/manifest.ts';
import type { ContentStore, StoreCallOptions } from '../store.ts';
import type { ImageName, ImageStore } from './local-images.ts';
import type { StoredManifests } from './stored-manifests.ts';

/** The images of a directory, for the walk over all of them. Nothing runs from a directory. */
export class DirectoryImages implements ImageStore {
  readonly #manifests: Pick<StoredManifests, 'read'>;
  readonly #store: Pick<ContentStore, 'stat' | 'names'>;

  constructor(dependencies: {
    manifests: Pick<StoredManifests, 'read'>;
    store: Pick<ContentStore, 'stat' | 'names'>;
  }) {
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
    const names: ImageName[] = [];
    for await (const name of this.#store.names(options)) names.push(name);
    return names;
  }

  async namesInUse(): Promise<ReadonlySet<string>> {
    return new Set();
  }

  async labels(): Promise<undefined> {
    return undefined;
  }
}
