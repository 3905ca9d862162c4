import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../src/oci/media-type.ts';
import type { CachedManifest } from '../../../src/registry/manifest-cache.ts';

/** A layer that all of these images have. */
export const base = digestOf(Buffer.from('base'));

/** The config of an image. */
export function config(name: string): Digest {
  return digestOf(Buffer.from(`${name}-config`));
}

/** The manifest of a small image. */
export function passed(name: string): CachedManifest {
  return cached(MEDIA_TYPE.ociManifest, {
    config: { mediaType: MEDIA_TYPE.ociConfig, digest: config(name), size: 1 },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: base, size: 4 }],
  });
}

/** An index of images. */
export function passedIndex(images: readonly CachedManifest[]): CachedManifest {
  return cached(MEDIA_TYPE.ociIndex, {
    manifests: images.map(({ mediaType, digest, bytes }) => ({
      mediaType,
      digest,
      size: bytes.length,
    })),
  });
}

function cached(mediaType: string, content: object): CachedManifest {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...content }));
  return { digest: digestOf(bytes), mediaType, bytes };
}
