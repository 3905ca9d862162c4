import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** The directory that stands for every registry without one of its own. */
export const DEFAULT_DIRECTORY = '_default';

/** A directory below a root of config_path, for one registry or for all. */
export interface RegistryDirectory {
  readonly path: string;
  /** Behind all links: where its files are written. */
  readonly realPath: string;
  /** As image names write it; undefined: `_default`. */
  readonly registry: string | undefined;
}

/** Something below a root that is passed over. */
export interface PassedOver {
  readonly path: string;
  readonly reason: string;
}

// The grammar of image references: a domain, or an IPv6 address in brackets, and a port.
const registryName =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[a-f0-9:]+\])(?::\d{1,5})?$/i;

/** The registry that a directory's name stands for: "a.test_5000_" is "a.test:5000". */
export function registryOf(directoryName: string): string | undefined {
  const name = directoryName.replace(/^(.+)_(\d+)_$/, '$1:$2');
  return registryName.test(name) ? name : undefined;
}

/**
 * Finds the directories that count, as containerd looks for them: root by root; in a root first
 * "host_port_", then "host:port", then `_default`, which hides all later roots.
 *
 * @returns those that are in effect; `_default` last, if there is one
 */
export async function findDirectories(roots: readonly string[]): Promise<{
  readonly directories: readonly RegistryDirectory[];
  readonly passedOver: readonly PassedOver[];
  /** Where `_default` is, or would hide nothing that is in effect. */
  readonly defaultRoot: string;
}> {
  const directories: RegistryDirectory[] = [];
  const passedOver: PassedOver[] = [];
  const seen = new Set<string>();
  let [defaultRoot = ''] = roots;
  let hiddenBy: string | undefined;
  for (const root of roots) {
    for (const { name, path } of await namesIn(root)) {
      const found = await directoryAt(path);
      if (typeof found === 'string') {
        if (found !== '') passedOver.push({ path, reason: found });
        continue;
      }
      const registry = registryOf(name);
      const isDefault = name === DEFAULT_DIRECTORY;
      if (registry === undefined && !isDefault) {
        passedOver.push({ path, reason: 'no image name can mean it' });
      } else if (hiddenBy !== undefined && !hiddenBy.startsWith(`${root}/`)) {
        passedOver.push({ path, reason: `containerd never gets past ${hiddenBy}` });
      } else if (registry !== undefined && seen.has(registry)) {
        passedOver.push({ path, reason: `another directory for ${registry} comes first` });
      } else {
        if (registry !== undefined) seen.add(registry);
        directories.push({ path, realPath: await realpath(path), registry });
        defaultRoot = root;
        if (isDefault) hiddenBy = path;
      }
    }
  }
  const isDefault = ({ registry }: RegistryDirectory): boolean => registry === undefined;
  return {
    directories: [
      ...directories.filter((each) => !isDefault(each)),
      ...directories.filter(isDefault),
    ],
    passedOver,
    defaultRoot,
  };
}

/** Entries of a root in the order in which they win; `_default` loses to all. */
async function namesIn(root: string): Promise<{ name: string; path: string }[]> {
  const names = await readdir(root).catch((error: unknown) => {
    if (isMissing(error)) return [];
    throw error;
  });
  const rank = (name: string): number =>
    name === DEFAULT_DIRECTORY ? 2 : name.includes(':') ? 1 : 0;
  return names
    .toSorted((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map((name) => ({ name, path: join(root, name) }));
}

/** @returns true for a directory; else why there is none, nothing for a mere file */
async function directoryAt(path: string): Promise<true | string> {
  try {
    return (await stat(path)).isDirectory() ? true : '';
  } catch (error) {
    const isLink = await lstat(path).then(
      (found) => found.isSymbolicLink(),
      () => false,
    );
    return isLink ? 'it is a link that leads nowhere' : String(error);
  }
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
