import type { Digest } from '../../oci/digest.ts';
import type { Descriptor } from '../../oci/descriptor.ts';
import { manifestFor, type ImageManifest, type Manifest } from '../../oci/manifest.ts';
import { isIndexMediaType } from '../../oci/media-type.ts';
import { parseReference } from '../../oci/reference.ts';
import type { ContentStore, StoreCallOptions } from '../store.ts';
import { KEPT_MARK } from './kept-mark.ts';
import { lazySnapshotterOf } from './lazy-snapshotter.ts';
import type { Repository } from './wanted-blob.ts';

/** One name of an image, as the store records it. */
export interface ImageName {
  readonly name: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
}

/** What the store says of a blob beside its bytes. */
export type BlobLabels = Readonly<Record<string, string>>;

/** Content of an image that this node needs, whether it has it or not. */
export interface ImagePart {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly kind: 'index' | 'manifest' | 'config' | 'layer';
  readonly isHeld: boolean;
}

/** An image on this node, under all of its names, as far as its content can be read. */
export interface LocalImage {
  readonly digest: Digest;
  /** One of its names, for people. */
  readonly name: string;
  /** Where its content can be asked for. */
  readonly repositories: readonly Repository[];
  readonly isInUse: boolean;
  /** Of this platform; undefined when it is not held. */
  readonly manifestDigest?: Digest;
  /** Whether the store was told to let go of its layers once they are unpacked. */
  readonly isDiscarded: boolean;
  /** The snapshotter that fetches layers by itself, so that they are never here. */
  readonly lazySnapshotter?: string;
  /** From the outside in. */
  readonly parts: readonly ImagePart[];
}

/** What the walk needs of a store. */
export interface ImageStore extends Pick<ContentStore, 'stat'> {
  /** @returns undefined when it is not held, or is no manifest */
  manifest(digest: Digest, options: StoreCallOptions): Promise<Manifest | undefined>;
  images(options: StoreCallOptions): Promise<readonly ImageName[]>;
  /** Names of images, as records or containers give them, that something on this node runs. */
  namesInUse(options: StoreCallOptions): Promise<ReadonlySet<string>>;
  /** @returns undefined when the store keeps no record of the blob */
  labels(digest: Digest, options: StoreCallOptions): Promise<BlobLabels | undefined>;
}

export interface LocalImagesOptions {
  readonly platform: { readonly os: string; readonly architecture: string };
}

const layerLabel = /^containerd\.io\/gc\.ref\.content\.l\.\d+$/;

/**
 * Every image of this node with what it consists of on this platform. One that cannot be read
 * is as complete as what could be read of it, and never hides the others.
 *
 * @throws StoreUnavailableError when the store cannot be asked, or the signal's reason
 */
export async function* localImages(
  { platform }: LocalImagesOptions,
  { store, signal }: { readonly store: ImageStore; readonly signal: AbortSignal },
): AsyncGenerator<LocalImage> {
  const [records, inUse] = await Promise.all([
    store.images({ signal }),
    store.namesInUse({ signal }),
  ]);
  const byTarget = Map.groupBy(records, ({ digest }) => digest);
  for (const [digest, named] of byTarget) {
    signal.throwIfAborted();
    const names = named.map(({ name }) => name);
    const walk = new ImageWalk(store, { platform, signal });
    await walk.run(named);
    yield {
      digest,
      name: names.find((name) => parseReference(name).ok) ?? digest,
      repositories: repositoriesOf(names),
      isInUse: names.some((name) => inUse.has(name)),
      ...walk.found,
    };
  }
}

/** The registries and repositories that names stand for, each once. */
export function repositoriesOf(names: readonly string[]): Repository[] {
  const found = new Map<string, Repository>();
  for (const name of names) {
    const reference = parseReference(name);
    if (!reference.ok) continue;
    const { registry, repository } = reference.value;
    found.set(`${registry}/${repository}`, { registry, repository });
  }
  return [...found.values()];
}

/** Layers are not referred to, or were not until the keeper saw to it. */
function showsDiscard(labels: BlobLabels): boolean {
  const keys = Object.keys(labels);
  return keys.includes(KEPT_MARK) || !keys.some((key) => layerLabel.test(key));
}

class ImageWalk {
  readonly #store: ImageStore;
  readonly #platform: LocalImagesOptions['platform'];
  readonly #signal: AbortSignal;
  readonly #parts: ImagePart[] = [];
  #found: Pick<LocalImage, 'manifestDigest' | 'isDiscarded' | 'lazySnapshotter'> = {
    isDiscarded: false,
  };

  constructor(store: ImageStore, options: LocalImagesOptions & { readonly signal: AbortSignal }) {
    this.#store = store;
    this.#platform = options.platform;
    this.#signal = options.signal;
  }

  get found(): Pick<LocalImage, 'parts' | 'manifestDigest' | 'isDiscarded' | 'lazySnapshotter'> {
    return { ...this.#found, parts: this.#parts };
  }

  /** @param records of the same image */
  async run([target]: readonly ImageName[]): Promise<void> {
    if (target === undefined) return;
    const options = { signal: this.#signal };
    const kind = isIndexMediaType(target.mediaType) ? 'index' : 'manifest';
    if (!(await this.#add(target, kind))) return;
    const document = await this.#store.manifest(target.digest, options);
    if (document?.kind === 'image') {
      await this.#image(target.digest, document);
      return;
    }
    const child = document === undefined ? undefined : manifestFor(document, this.#platform);
    if (child === undefined || !(await this.#add(child, 'manifest'))) return;
    const manifest = await this.#store.manifest(child.digest, options);
    if (manifest?.kind === 'image') await this.#image(child.digest, manifest);
  }

  async #image(digest: Digest, { config, layers }: ImageManifest): Promise<void> {
    const options = { signal: this.#signal };
    const labels = await this.#store.labels(digest, options);
    const configLabels =
      config === undefined ? undefined : await this.#store.labels(config.digest, options);
    const lazySnapshotter = lazySnapshotterOf(configLabels ?? {});
    this.#found = {
      manifestDigest: digest,
      isDiscarded: labels !== undefined && layers.length > 0 && showsDiscard(labels),
      ...(lazySnapshotter === undefined ? {} : { lazySnapshotter }),
    };
    if (config !== undefined) await this.#add(config, 'config');
    const seen = new Set<Digest>();
    for (const layer of layers) {
      // What is fetched from elsewhere, or may not be passed on, is not part of a registry.
      const isForeign = /\.(foreign|nondistributable)\./.test(layer.mediaType);
      if (isForeign || seen.has(layer.digest)) continue;
      seen.add(layer.digest);
      await this.#add(layer, 'layer');
    }
  }

  /** @returns whether it is held */
  async #add(
    { digest, sizeBytes }: Pick<Descriptor, 'digest' | 'sizeBytes'>,
    kind: ImagePart['kind'],
  ): Promise<boolean> {
    const info = await this.#store.stat(digest, { signal: this.#signal });
    const isHeld = info !== undefined;
    this.#parts.push({ digest, sizeBytes, kind, isHeld });
    return isHeld;
  }
}
