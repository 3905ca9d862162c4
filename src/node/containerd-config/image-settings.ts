import type { ConfigFile } from './config-files.ts';
import type { ContainerdRelease } from './containerd-release.ts';
import { isTable, tableIn, valueIn, type TomlTable } from '../toml-table.ts';

const CRI_1 = 'io.containerd.grpc.v1.cri';
const CRI_2 = 'io.containerd.cri.v1.images';

/**
 * The settings of containerd's CRI image service as they stand in files, in the form of 2.x,
 * whatever the files are written for.
 *
 * 1.x lets an imported file replace a plugin's settings as a whole; 2.x merges them key by key,
 * after it has brought each file to its own form.
 */
export function imageSettings(
  files: readonly ConfigFile[],
  options: { readonly isSecond: boolean; readonly release: ContainerdRelease },
): TomlTable {
  if (!options.isSecond) {
    let whole: TomlTable = {};
    for (const { content } of files) whole = criOfFirst(content) ?? whole;
    return fromFirst(whole, { isMigrated: false });
  }
  // Up to 2.2 files are merged before they are brought to the newest form, later each on its own.
  const isEach = options.release.version === undefined || options.release.isAtLeast('2.3.0');
  const contents = files.map(({ content }) => content);
  // The version of the last file then counts for all, and those without any lose their settings.
  const joined = isEach ? contents : [contents.filter(hasVersion).reduce(merge, {})];
  return joined.map((content) => migrated(content, isEach ? 4 : 3)).reduce(merge, {});
}

function hasVersion(content: TomlTable): boolean {
  return versionOf(content) > 1;
}

/** Settings of 2.x in a file of any version; one of the newest version is not migrated. */
function migrated(content: TomlTable, newest: number): TomlTable {
  const own = tableIn(content, ['plugins', CRI_2]);
  const first = criOfFirst(content);
  if (first === undefined || versionOf(content) >= newest) return own;
  return { ...own, ...fromFirst(first, { isMigrated: true }) };
}

function criOfFirst(content: TomlTable): TomlTable | undefined {
  const name = versionOf(content) < 2 ? 'cri' : CRI_1;
  const found = valueIn(content, ['plugins', name]);
  return isTable(found) ? found : undefined;
}

/** The `version` of a config file; 1 where it says nothing. */
export function versionOf(content: TomlTable): number {
  const { version } = content;
  return typeof version === 'number' && version > 0 ? version : 1;
}

function fromFirst(cri: TomlTable, { isMigrated }: { readonly isMigrated: boolean }): TomlTable {
  const settings: Record<string, unknown> = {};
  for (const key of ['registry', 'max_concurrent_downloads', 'image_pull_with_sync_fs']) {
    if (cri[key] !== undefined) settings[key] = cri[key];
  }
  const containerd = tableIn(cri, ['containerd']);
  // The migration of 2.x skips what is in this table unless it names runtimes.
  if (isMigrated && !isTable(containerd['runtimes'])) return settings;
  for (const key of ['snapshotter', 'disable_snapshot_annotations', 'discard_unpacked_layers']) {
    if (containerd[key] !== undefined) settings[key] = containerd[key];
  }
  return settings;
}

function merge(to: TomlTable, from: TomlTable): TomlTable {
  const merged: Record<string, unknown> = { ...to };
  for (const [key, value] of Object.entries(from)) {
    const before = merged[key];
    merged[key] = isTable(before) && isTable(value) ? merge(before, value) : value;
  }
  return merged;
}
