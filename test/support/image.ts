import { buildLayer, sha256 } from './layer.ts';
import type { BlobFile, BuiltLayer, Compression, LayerSpec } from './layer.ts';

export type ImageFormat = 'oci' | 'docker';

const ociIndexType = 'application/vnd.oci.image.index.v1+json';
const ociManifestType = 'application/vnd.oci.image.manifest.v1+json';
const dockerListType = 'application/vnd.docker.distribution.manifest.list.v2+json';
const dockerManifestType = 'application/vnd.docker.distribution.manifest.v2+json';
const emptyConfigType = 'application/vnd.oci.empty.v1+json';

/** A platform as indexes name it. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** What an image is made of. */
export interface ImageSpec {
  /** Where its blobs are written. */
  readonly directory: string;
  readonly layers: readonly LayerSpec[];
  /** This machine's unless told. */
  readonly platform?: Platform;
  /** oci unless told. */
  readonly format?: ImageFormat;
  /** gzip unless told. */
  readonly compression?: Compression;
  /** Of the manifest; a way to make it big. OCI only. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A blob that is on disk or, being small, in memory. */
export type Blob =
  BlobFile | { readonly digest: string; readonly size: number; readonly data: Buffer };

/** A manifest or index with everything that it refers to. */
export interface Image {
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  /** The manifest's exact bytes. */
  readonly manifest: Buffer;
  /** Config and layers; an index has none of its own. */
  readonly blobs: readonly Blob[];
  /** Images that an index refers to. */
  readonly children: readonly Image[];
  readonly platform?: Platform;
  /** Annotations of its entry in an index. */
  readonly entryAnnotations?: Readonly<Record<string, string>>;
}

/** The platform that containerd on this machine looks for. */
export const hostPlatform: Platform = {
  os: 'linux',
  architecture: process.arch === 'x64' ? 'amd64' : process.arch,
};

/** Builds a single-platform image that containerd can unpack. */
export async function buildImage(spec: ImageSpec): Promise<Image> {
  const format = spec.format ?? 'oci';
  const platform = spec.platform ?? hostPlatform;
  const layers: BuiltLayer[] = [];
  for (const layer of spec.layers) {
    const options = { directory: spec.directory, compression: spec.compression ?? 'gzip' };
    layers.push(await buildLayer(layer, options));
  }
  const config = memoryBlob({
    ...platform,
    created: '2024-01-01T00:00:00Z',
    config: { Cmd: ['/bin/true'] },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map(() => ({ created: '2024-01-01T00:00:00Z', created_by: 'salvor test' })),
  });
  const configType =
    format === 'oci'
      ? 'application/vnd.oci.image.config.v1+json'
      : 'application/vnd.docker.container.image.v1+json';
  const manifest = {
    schemaVersion: 2,
    mediaType: format === 'oci' ? ociManifestType : dockerManifestType,
    config: descriptor(configType, config),
    layers: layers.map((layer) => descriptor(layerType(format, layer.compression), layer)),
    ...(spec.annotations && { annotations: spec.annotations }),
  };
  return { ...finish(manifest), blobs: [config, ...layers], children: [], platform };
}

/** Builds an artifact: a manifest with an artifact type, the empty config and no layers. */
export function buildArtifact(
  options: { readonly annotations?: Readonly<Record<string, string>> } = {},
): Image {
  const config = memoryBlob({});
  const manifest = {
    schemaVersion: 2,
    mediaType: ociManifestType,
    artifactType: 'application/vnd.salvor.test',
    config: descriptor(emptyConfigType, config),
    layers: [],
    ...(options.annotations && { annotations: options.annotations }),
  };
  return { ...finish(manifest), blobs: [config], children: [] };
}

/** Builds the attestation that build tools put beside an image, for the platform unknown/unknown. */
export function buildAttestation(subject: Image): Image {
  const config = memoryBlob({ architecture: 'unknown', os: 'unknown', config: {} });
  const statement = memoryBlob({ _type: 'https://in-toto.io/Statement/v0.1', subject: [] });
  const manifest = {
    schemaVersion: 2,
    mediaType: ociManifestType,
    config: descriptor('application/vnd.oci.image.config.v1+json', config),
    layers: [descriptor('application/vnd.in-toto+json', statement)],
  };
  return {
    ...finish(manifest),
    blobs: [config, statement],
    children: [],
    platform: { os: 'unknown', architecture: 'unknown' },
    entryAnnotations: {
      'vnd.docker.reference.type': 'attestation-manifest',
      'vnd.docker.reference.digest': subject.digest,
    },
  };
}

/** Builds an OCI index or a Docker manifest list over images. */
export function buildIndex(
  children: readonly Image[],
  options: {
    readonly format?: ImageFormat;
    readonly annotations?: Readonly<Record<string, string>>;
  } = {},
): Image {
  const index = {
    schemaVersion: 2,
    mediaType: options.format === 'docker' ? dockerListType : ociIndexType,
    manifests: children.map((child) => ({
      ...descriptor(child.mediaType, child),
      ...(child.platform && { platform: child.platform }),
      ...(child.entryAnnotations && { annotations: child.entryAnnotations }),
    })),
    ...(options.annotations && { annotations: options.annotations }),
  };
  return { ...finish(index), blobs: [], children };
}

/**
 * Annotations that make a manifest about as big as wanted.
 *
 * @param sizeBytes of all of them together, rounded up to 1,000
 */
export function bulkyAnnotations(sizeBytes: number): Record<string, string> {
  const count = Math.ceil(sizeBytes / 1000);
  const entries = Array.from({ length: count }, (_, index) => {
    const key = `test.salvor.bulk.${String(index).padStart(6, '0')}`;
    return [key, sha256(key).repeat(20).slice(0, 970)];
  });
  return Object.fromEntries(entries) as Record<string, string>;
}

/** @returns every digest with its size that belongs to the image, its own and its children's */
export function contentOf(image: Image): { digest: string; size: number }[] {
  const own = [image, ...image.blobs].map(({ digest, size }) => ({ digest, size }));
  return [...own, ...image.children.flatMap(contentOf)];
}

function layerType(format: ImageFormat, compression: Compression): string {
  const base =
    format === 'oci'
      ? 'application/vnd.oci.image.layer.v1.tar'
      : 'application/vnd.docker.image.rootfs.diff.tar';
  if (compression === 'none') return base;
  return `${base}${format === 'oci' ? '+' : '.'}${compression}`;
}

function descriptor(
  mediaType: string,
  content: { readonly digest: string; readonly size: number },
): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest: content.digest, size: content.size };
}

function memoryBlob(content: unknown): { digest: string; size: number; data: Buffer } {
  const data = Buffer.from(JSON.stringify(content));
  return { digest: sha256(data), size: data.length, data };
}

function finish(content: { readonly mediaType: string }): {
  digest: string;
  mediaType: string;
  size: number;
  manifest: Buffer;
} {
  const manifest = Buffer.from(JSON.stringify(content, undefined, 2));
  return {
    digest: sha256(manifest),
    mediaType: content.mediaType,
    size: manifest.length,
    manifest,
  };
}
