import { access, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';

/**
 * Where something of the node is seen from here: under its own name, as on the node or where a
 * container mounts just that, else under the node's own "/".
 *
 * @param path absolute, as it is on the node
 */
export async function seenAt(path: string, hostRoot: string): Promise<string> {
  if (hostRoot === '/' || path === '' || isUnder(path, hostRoot)) return path;
  return (await isThere(path)) ? path : join(hostRoot, path);
}

/** Where the node's processes are seen, which need not be those of this container. */
export async function procSeenFrom(hostRoot: string): Promise<string> {
  const proc = join(hostRoot, 'proc');
  return (await isThere(join(proc, '1'))) ? proc : '/proc';
}

/** Whether a process has the same "/" as the one that is looked through: what is missing there is missing. */
export async function hasRoot(pid: number, hostRoot: string): Promise<boolean> {
  const roots = [hostRoot, join(await procSeenFrom(hostRoot), String(pid), 'root')];
  const [ours, theirs] = await Promise.all(
    // The path ends in a slash, or it would be the link that is looked at.
    roots.map((root) => stat(`${root}/`).catch(() => undefined)),
  );
  return ours !== undefined && ours.dev === theirs?.dev && ours.ino === theirs.ino;
}

/** A path without the node's "/" before it, where somebody gave it with that. */
export function asOnNode(path: string, hostRoot: string): string {
  return isUnder(path, hostRoot) ? join('/', relative(hostRoot, path)) : path;
}

function isUnder(path: string, directory: string): boolean {
  return (
    path === directory || path.startsWith(directory.endsWith('/') ? directory : `${directory}/`)
  );
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
