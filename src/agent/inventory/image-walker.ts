import type { Descriptor } from '../../oci/descriptor.ts';
import { parseDigest, type Digest } from '../../oci/digest.ts';
import type { ImageManifest, IndexManifest } from '../../oci/manifest.ts';
import {
  isImageManifestMediaType,
  isIndexMediaType,
  isManifestMediaType,
  mediaTypeEssence,
} from '../../oci/media-type.ts';
import type {
  ImagePart,
  ImageTree,
  NodeBlob,
  PartRole,
  PlatformTree,
} from '../../rpc/inventory.ts';
import { lazySnapshotterOf } from '../keeper/lazy-snapshotter.ts';
import type { StoreCallOptions } from '../store.ts';
import type { ManifestReader } from './manifest-reader.ts';
import type { StoreSurvey, SurveyedImage } from './survey.ts';

/** An index may list indexes; nobody nests them deeper. */
const MAX_DEPTH = 3;

/** What a walk may look at. */
export interface WalkContext extends StoreCallOptions {
  readonly blobs: ReadonlyMap<Digest, NodeBlob>;
  readonly labels: StoreSurvey['labels'];
  /** Told of blobs whose bytes turn out not to be those of their digest. */
  readonly onWrong: (digest: Digest) => void;
}

/** Follows images from their targets to all that they need, as far as the store has it. */
export class ImageWalker {
  readonly #reader: Pick<ManifestReader, 'manifest' | 'platform'>;

  constructor(dependencies: { reader: Pick<ManifestReader, 'manifest' | 'platform'> }) {
    this.#reader = dependencies.reader;
  }

  /**
   * What an image's target leads to. Nothing that is odd about one image is thrown.
   *
   * @throws StoreUnavailableError, or the reason of the signal
   */
  async walk(target: Descriptor, context: WalkContext): Promise<ImageTree> {
    const { digest: root, mediaType, sizeBytes } = target;
    const tree = { root, mediaType, sizeBytes, platforms: [] };
    const found = context.blobs.get(root);
    if (found === undefined) return { ...tree, problem: `${root} is not there` };
    if (found.sizeBytes !== sizeBytes) {
      return { ...tree, problem: `${root} has ${found.sizeBytes} bytes, not ${sizeBytes}` };
    }
    const read = await this.#read(target, context);
    if ('problem' in read) return { ...tree, problem: read.problem };
    const platforms =
      read.value.kind === 'index'
        ? await this.#index(read.value, [partOf('index', target)], context)
        : [await this.#image(target, read.value, { above: [], declared: undefined }, context)];
    return { ...tree, platforms };
  }

  async #index(
    index: IndexManifest,
    above: readonly ImagePart[],
    context: WalkContext,
  ): Promise<PlatformTree[]> {
    const platforms: PlatformTree[] = [];
    for (const entry of index.manifests) {
      if (isAttestation(entry)) continue;
      const type = mediaTypeEssence(entry.mediaType);
      if (isImageManifestMediaType(type)) {
        platforms.push(await this.#entry(entry, above, context));
      } else if (isIndexMediaType(type) && above.length < MAX_DEPTH) {
        const read = await this.#read(entry, context);
        if ('problem' in read || read.value.kind !== 'index') continue;
        platforms.push(
          ...(await this.#index(read.value, [...above, partOf('index', entry)], context)),
        );
      }
    }
    return platforms;
  }

  async #entry(
    entry: Descriptor,
    above: readonly ImagePart[],
    context: WalkContext,
  ): Promise<PlatformTree> {
    const isPlaced = entry.platform !== undefined;
    const unread = {
      platform: entry.platform,
      isDeclared: isPlaced,
      manifest: entry.digest,
      parts: [...above, partOf('manifest', entry)],
      isRead: false,
    };
    if (!context.blobs.has(entry.digest)) return unread;
    const read = await this.#read(entry, context);
    if ('problem' in read) return { ...unread, problem: read.problem };
    if (read.value.kind !== 'image')
      return { ...unread, problem: 'it is an index, not a manifest' };
    return this.#image(entry, read.value, { above, declared: entry.platform }, context);
  }

  async #image(
    descriptor: Descriptor,
    manifest: ImageManifest,
    place: { readonly above: readonly ImagePart[]; readonly declared: Descriptor['platform'] },
    context: WalkContext,
  ): Promise<PlatformTree> {
    const { config, layers } = manifest;
    const parts = [
      ...place.above,
      partOf('manifest', descriptor),
      ...(config === undefined ? [] : [partOf('config', config)]),
      ...layers.map((layer) => partOf('layer', layer)),
    ];
    const isConfigThere = config !== undefined && context.blobs.has(config.digest);
    const said = isConfigThere ? await this.#reader.platform(config.digest, context) : undefined;
    const lazySnapshotter = lazySnapshotterOf(context.labels.get(config?.digest ?? '') ?? {});
    return {
      platform: place.declared ?? said,
      isDeclared: place.declared !== undefined,
      manifest: descriptor.digest,
      parts,
      isRead: true,
      ...(lazySnapshotter === undefined ? {} : { lazySnapshotter }),
    };
  }

  async #read(
    descriptor: Descriptor,
    context: WalkContext,
  ): ReturnType<ManifestReader['manifest']> {
    const read = await this.#reader.manifest(descriptor, context);
    if ('problem' in read && read.isWrong === true) context.onWrong(descriptor.digest);
    return read;
  }
}

/**
 * The target of an image record.
 *
 * @returns why it is none that can be walked, where it is not
 */
export function targetOf(
  image: SurveyedImage,
): { readonly target: Descriptor } | { readonly problem: string } {
  const { digest: text, mediaType, sizeBytes } = image.target;
  const digest = parseDigest(text);
  if (!digest.ok) return { problem: `it points at ${JSON.stringify(text)}: ${digest.reason}` };
  const type = mediaTypeEssence(mediaType);
  if (!isManifestMediaType(type)) {
    return { problem: `it points at ${mediaType || 'nothing with a type'}, which is no image` };
  }
  if (!isImageManifestMediaType(type) && !isIndexMediaType(type)) {
    return { problem: 'it is a schema 1 image, which cannot be served' };
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    return { problem: `it points at something of ${sizeBytes} bytes` };
  }
  return { target: { digest: digest.value, mediaType, sizeBytes } };
}

/** Provenance and the like, which no node runs: listed for the platform unknown/unknown. */
function isAttestation({ annotations, platform }: Descriptor): boolean {
  return (
    (platform?.os === 'unknown' && platform.architecture === 'unknown') ||
    annotations?.['vnd.docker.reference.type'] === 'attestation-manifest'
  );
}

function partOf(role: PartRole, { digest, sizeBytes, urls }: Descriptor): ImagePart {
  return { role, digest, sizeBytes, isForeign: role === 'layer' && (urls?.length ?? 0) > 0 };
}
