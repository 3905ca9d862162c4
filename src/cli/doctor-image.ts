import type { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import type { StoredManifests } from '../agent/keeper/stored-manifests.ts';
import type { Facts } from '../node/doctor/facts.ts';
import { parseDigest, type Digest } from '../oci/digest.ts';
import { formatReference, parseReference } from '../oci/reference.ts';
import { goArchitecture, manifestFor, type ImageManifest } from '../oci/manifest.ts';

interface Parts {
  readonly client: Pick<ContainerdClient, 'image' | 'info'>;
  readonly manifests: Pick<StoredManifests, 'read'>;
  readonly signal: AbortSignal;
}

/**
 * Looks whether an image is there down to its last layer, for this machine's platform.
 *
 * @param image as people write it; undefined: Salvor does not run from an image here
 * @throws when it is no name of an image
 */
export async function gatherOwnImage(
  image: string | undefined,
  parts: Parts,
): Promise<Facts['ownImage'] | undefined> {
  if (image === undefined) return undefined;
  const reference = parseReference(image);
  if (!reference.ok) throw new Error(`Cannot look for ${image}: ${reference.reason}`);
  // As containerd has it, and crictl takes it.
  const name = formatReference(reference.value);
  const { client, signal } = parts;
  const digest = parseDigest((await client.image(name, { signal }))?.target?.digest ?? '');
  if (!digest.ok) return { name, missing: ['the image'] };
  const manifest = await imageManifest(digest.value, parts);
  if (manifest === undefined) return { name, missing: ['its manifest'] };
  const needed = [...(manifest.config ? [manifest.config] : []), ...manifest.layers];
  const missing: string[] = [];
  for (const each of needed) {
    if ((await client.info(each.digest, { signal })) === undefined) missing.push(each.digest);
  }
  return { name, missing };
}

async function imageManifest(digest: Digest, parts: Parts): Promise<ImageManifest | undefined> {
  const { manifests, signal } = parts;
  const found = await manifests.read(digest, { signal });
  if (found?.kind !== 'index') return found;
  const own = manifestFor(found, { os: 'linux', architecture: goArchitecture(process.arch) });
  const child = own && (await manifests.read(own.digest, { signal }));
  return child?.kind === 'image' ? child : undefined;
}
