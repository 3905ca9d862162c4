/**
 * Snapshotters that can fetch the files of an image when they are read. Images that they have
 * prepared need no layers in the content store.
 */
export const LAZY_SNAPSHOTTERS: ReadonlySet<string> = new Set([
  'cvmfs-snapshotter',
  'gcfs',
  'nydus',
  'overlaybd',
  'soci',
  'stargz',
]);

const snapshotLabel = 'containerd.io/gc.ref.snapshot.';

/**
 * @param configLabels the labels of an image's config in containerd's content store, where CRI
 *   notes which snapshotter has unpacked it
 * @returns undefined when the image was unpacked in the usual way, or not at all
 */
export function lazySnapshotterOf(
  configLabels: Readonly<Record<string, string>>,
): string | undefined {
  return Object.keys(configLabels)
    .filter((key) => key.startsWith(snapshotLabel))
    .map((key) => key.slice(snapshotLabel.length))
    .find((name) => LAZY_SNAPSHOTTERS.has(name));
}
