import { createCipheriv, createHash } from 'node:crypto';
import { hostPlatform } from '../../support/image.ts';
import type { MemoryRegistry } from '../../support/memory-registry.ts';

export const manifestType = 'application/vnd.oci.image.manifest.v1+json';

/** Bytes and what they are called. */
export interface Content {
  readonly digest: string;
  readonly bytes: Buffer;
}

/** A small image that exists once: its bytes follow from its seed. */
export interface FaultImage {
  readonly tag: string;
  readonly manifest: Content;
  readonly config: Content;
  readonly layer: Content;
}

/**
 * Makes an image.
 *
 * @param seed every other seed gives an image that shares nothing with this one
 */
export function faultImage(seed: string, options: { readonly layerBytes: number }): FaultImage {
  const layer = content(randomBytes(seed, options.layerBytes));
  const { os, architecture } = hostPlatform;
  const config = content(
    Buffer.from(JSON.stringify({ os, architecture, seed, rootfs: { type: 'layers' } })),
  );
  const manifest = content(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: manifestType,
        config: describe('application/vnd.oci.image.config.v1+json', config),
        layers: [describe('application/vnd.oci.image.layer.v1.tar', layer)],
      }),
    ),
  );
  return {
    tag: `t-${createHash('sha256').update(seed).digest('hex').slice(0, 16)}`,
    manifest,
    config,
    layer,
  };
}

/** Everything that an image consists of. */
export function contentsOf(image: FaultImage): readonly Content[] {
  return [image.manifest, image.config, image.layer];
}

/** Pushes an image. */
export function pushTo(registry: MemoryRegistry, image: FaultImage): void {
  registry.put({ bytes: image.manifest.bytes, mediaType: manifestType });
  registry.put({ bytes: image.config.bytes });
  registry.put({ bytes: image.layer.bytes });
  registry.tag(image.tag, image.manifest.digest);
}

/** Removes an image. */
export function removeFrom(registry: MemoryRegistry, image: FaultImage): void {
  for (const { digest } of contentsOf(image)) registry.remove(digest);
}

function content(bytes: Buffer): Content {
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` };
}

function describe(
  mediaType: string,
  { digest, bytes }: Content,
): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size: bytes.length };
}

function randomBytes(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}
