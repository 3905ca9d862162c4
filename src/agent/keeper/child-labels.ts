import type { Digest } from '../../oci/digest.ts';
import type { Descriptor } from '../../oci/descriptor.ts';
import type { Manifest } from '../../oci/manifest.ts';
import { isImageManifestMediaType, MEDIA_TYPE } from '../../oci/media-type.ts';

/** Labels of a blob that refer to its children begin so; garbage collection follows them. */
export const REFERENCE_PREFIX = 'containerd.io/gc.ref.content.';

/** A label by which garbage collection finds a child of a manifest. */
export interface ChildLabel {
  readonly key: string;
  readonly digest: Digest;
}

/**
 * The labels that containerd gives a manifest or an index whose children shall all be kept,
 * numbered as it does: each kind of child by its position among its kind.
 */
export function childLabels(manifest: Manifest): ChildLabel[] {
  const children =
    manifest.kind === 'index'
      ? manifest.manifests
      : [...(manifest.config === undefined ? [] : [manifest.config]), ...manifest.layers];
  const counts = new Map<string, number>();
  return children.map((child) => {
    const kind = kindOf(child);
    const position = counts.get(kind) ?? 0;
    counts.set(kind, position + 1);
    const isNumbered = kind !== 'config' || position > 0;
    return {
      key: `${REFERENCE_PREFIX}${kind}${isNumbered ? position : ''}`,
      digest: child.digest,
    };
  });
}

/**
 * Those of the labels whose child nothing refers to. A key that says something else already is
 * left as it is.
 *
 * @param labels what the blob has
 */
export function missingLabels(
  wanted: readonly ChildLabel[],
  labels: Readonly<Record<string, string>>,
): ChildLabel[] {
  const referred = new Set(
    Object.entries(labels)
      .filter(([key]) => key.startsWith(REFERENCE_PREFIX))
      .map(([, value]) => value),
  );
  return wanted.filter(({ key, digest }) => !referred.has(digest) && !Object.hasOwn(labels, key));
}

function kindOf({ mediaType }: Descriptor): string {
  if (configTypes.has(mediaType)) return 'config';
  if (isImageManifestMediaType(mediaType)) return 'm.';
  return layerPrefixes.some((prefix) => mediaType.startsWith(prefix)) ? 'l.' : '';
}

const configTypes: ReadonlySet<string> = new Set([MEDIA_TYPE.ociConfig, MEDIA_TYPE.dockerConfig]);
const layerPrefixes = [
  'application/vnd.oci.image.layer.',
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
];
