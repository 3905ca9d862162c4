import type {
  StoreSurvey,
  SurveyedImage,
  SurveyedStore,
} from '../../../../src/agent/inventory/survey.ts';
import type { BlobInfo, ContentStore, OpenBlob } from '../../../../src/agent/store.ts';
import type { Descriptor, Platform } from '../../../../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';

const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';
export const amd64: Platform = { os: 'linux', architecture: 'amd64' };
export const arm64: Platform = { os: 'linux', architecture: 'arm64' };

/** An image that was put into a store, and what it consists of. */
export interface MadeImage {
  readonly target: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** A store in memory that can be filled with images, whole and otherwise. */
export class MemoryStore implements Pick<ContentStore, 'blobs' | 'kind' | 'open'>, SurveyedStore {
  readonly kind = 'containerd';
  readonly blobsByDigest = new Map<Digest, Buffer>();
  readonly images: SurveyedImage[] = [];
  readonly labels = new Map<string, Record<string, string>>();
  readonly usedImages = new Set<string>();
  kept: ReadonlySet<string> | 'everything' = 'everything';
  /** How often blobs were listed and opened. */
  readonly counts = { lists: 0, opens: 0 };
  failure: Error | undefined;

  add(content: unknown, mediaType: string): Descriptor {
    const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
    const digest = digestOf(bytes);
    this.blobsByDigest.set(digest, bytes);
    return { digest, mediaType, sizeBytes: bytes.length };
  }

  /** An image's manifest with config and layers; nothing names it yet. */
  addManifest(
    seed: string,
    options: {
      readonly platform?: Platform;
      readonly layers?: number;
      readonly urls?: string[];
    } = {},
  ): MadeImage {
    const { platform = amd64, layers: count = 2, urls } = options;
    const config = this.add({ seed, ...platform, rootfs: {} }, MEDIA_TYPE.ociConfig);
    const layers = Array.from({ length: count }, (_, n) =>
      this.add(Buffer.from(`layer ${n} of ${seed}`), layerType),
    );
    const target = this.add(
      {
        schemaVersion: 2,
        mediaType: MEDIA_TYPE.ociManifest,
        config: json(config),
        layers: layers.map((layer) => ({ ...json(layer), ...(urls && { urls }) })),
      },
      MEDIA_TYPE.ociManifest,
    );
    return { target, config, layers };
  }

  addIndex(entries: readonly (Descriptor & { readonly platform?: Platform })[]): Descriptor {
    const manifests = entries.map((entry) => ({
      ...json(entry),
      ...(entry.platform && { platform: entry.platform }),
    }));
    const index = { schemaVersion: 2, mediaType: MEDIA_TYPE.ociIndex, manifests };
    return this.add(index, MEDIA_TYPE.ociIndex);
  }

  name(name: string, target: SurveyedImage['target']): void {
    const { digest, mediaType, sizeBytes } = target;
    this.images.push({ name, target: { digest, mediaType, sizeBytes }, recordedAtMs: 1000 });
  }

  async *blobs(): AsyncGenerator<BlobInfo> {
    this.counts.lists += 1;
    if (this.failure !== undefined) throw this.failure;
    for (const [digest, bytes] of this.blobsByDigest) yield infoOf(digest, bytes);
  }

  async open(digest: Digest): Promise<OpenBlob | undefined> {
    const bytes = this.blobsByDigest.get(digest);
    if (bytes === undefined) return undefined;
    this.counts.opens += 1;
    return {
      ...infoOf(digest, bytes),
      read: async (target, position) => bytes.copy(target, 0, position),
      close: async () => undefined,
    };
  }

  async survey(): Promise<StoreSurvey> {
    return {
      images: this.images,
      usedImages: this.usedImages,
      kept: this.kept,
      labels: this.labels,
      runtimeVersion: '2.2.0',
      snapshotter: 'overlayfs',
      warnings: [],
    };
  }
}

function infoOf(digest: Digest, bytes: Buffer): BlobInfo {
  return { digest, sizeBytes: bytes.length, fingerprint: '1' };
}

function json({ digest, mediaType, sizeBytes }: Descriptor): Record<string, unknown> {
  return { digest, mediaType, size: sizeBytes };
}
