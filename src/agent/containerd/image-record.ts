import type { Timestamp } from '@bufbuild/protobuf/wkt';

import { parseDigest } from '../../oci/digest.ts';
import { isImageManifestMediaType, isIndexMediaType } from '../../oci/media-type.ts';
import { formatReference, parseReference } from '../../oci/reference.ts';
import type { Image } from '../../rpc/gen/containerd/services/images/v1/images_pb.ts';
import type { NamedDescriptor } from '../store.ts';

/**
 * Reads one of containerd's image records.
 *
 * @param options.withDigests "registry/repository@digest" counts, too
 * @returns undefined when it is no "registry/repository:tag" that names a manifest or an index:
 *   image ids, names with digests, names that people made up
 */
export function readImageRecord(
  image: Image,
  { withDigests = false }: { readonly withDigests?: boolean } = {},
): NamedDescriptor | undefined {
  const { name, target } = image;
  const reference = parseReference(name);
  if (target === undefined || !reference.ok) return undefined;
  const { tag, digest: pinned } = reference.value;
  const isSimple = pinned === undefined ? tag !== undefined : withDigests && tag === undefined;
  // Only a name in normal form can be asked for.
  const isUsable = isSimple && formatReference(reference.value) === name;
  const digest = parseDigest(target.digest);
  const { mediaType } = target;
  const isImage = isImageManifestMediaType(mediaType) || isIndexMediaType(mediaType);
  const sizeBytes = Number(target.size);
  if (!isUsable || !digest.ok || !isImage || !Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    return undefined;
  }
  return { name, digest: digest.value, mediaType, sizeBytes, recordedAtMs: recordTimeMs(image) };
}

/** When containerd last wrote a record, milliseconds since the epoch; 0 when it does not say. */
export function recordTimeMs(image: Pick<Image, 'createdAt' | 'updatedAt'>): number {
  return milliseconds(image.updatedAt) ?? milliseconds(image.createdAt) ?? 0;
}

function milliseconds(time: Timestamp | undefined): number | undefined {
  if (time === undefined) return undefined;
  const value = Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6);
  // Go's zero time lies in the year 1.
  return value > 0 && Number.isSafeInteger(value) ? value : undefined;
}
