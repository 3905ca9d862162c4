import type { Labels } from '../../../../src/agent/containerd/containerd-editor.ts';
import type { ContentStore, OpenBlob } from '../../../../src/agent/store.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';

/** Blobs with labels, as containerd has them, in memory. */
export class FakeContent implements Pick<ContentStore, 'open'> {
  readonly blobs = new Map<Digest, { readonly bytes: Buffer; labels: Labels }>();
  /** One entry for each call that changed labels. */
  readonly updates: Digest[] = [];
  opened = 0;
  closed = 0;
  /** What every call fails with, while set. */
  failure: Error | undefined;

  add(bytes: Buffer, labels: Labels = {}): Digest {
    const digest = digestOf(bytes);
    this.blobs.set(digest, { bytes, labels });
    return digest;
  }

  async labels(digest: Digest): Promise<Labels | undefined> {
    if (this.failure !== undefined) throw this.failure;
    return this.blobs.get(digest)?.labels;
  }

  async updateLabels(digest: Digest, { set = {} }: { readonly set?: Labels }): Promise<boolean> {
    if (this.failure !== undefined) throw this.failure;
    const blob = this.blobs.get(digest);
    if (blob === undefined) return false;
    this.updates.push(digest);
    blob.labels = { ...blob.labels, ...set };
    return true;
  }

  async open(digest: Digest): Promise<OpenBlob | undefined> {
    const bytes = this.blobs.get(digest)?.bytes;
    if (bytes === undefined) return undefined;
    this.opened += 1;
    return {
      digest,
      sizeBytes: bytes.byteLength,
      fingerprint: '1',
      read: async (target, position) => bytes.copy(target, 0, position),
      close: async () => {
        this.closed += 1;
      },
    };
  }
}

export const configType = MEDIA_TYPE.ociConfig;
export const layerType = 'application/vnd.oci.image.layer.v1.tar';

/** A manifest of one config and some layers, by name. */
export function manifestOf(name: string, layers: readonly string[]): Buffer {
  const part = (mediaType: string, content: string): object => ({
    mediaType,
    digest: digestOf(Buffer.from(content)),
    size: content.length,
  });
  return json({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE.ociManifest,
    config: part(configType, `${name}-config`),
    layers: layers.map((layer) => part(layerType, layer)),
  });
}

export function indexOf(manifests: readonly Buffer[]): Buffer {
  return json({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE.ociIndex,
    manifests: manifests.map((bytes) => ({
      mediaType: MEDIA_TYPE.ociManifest,
      digest: digestOf(bytes),
      size: bytes.byteLength,
    })),
  });
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
