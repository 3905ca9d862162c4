import { readFile, readdir, readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';

import { asOnNode } from './host-root.ts';

/** The process at the other end of a socket. */
export interface SocketOwner {
  readonly pid: number;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * Finds who listens on a unix socket. Needs the rights to look into other processes, and to see
 * them: in a Pod, hostPID.
 *
 * @param socketPath as it is called on the node
 * @param options.procRoot where proc is, "/proc" unless told
 * @param options.hostRoot where the node's own "/" is
 * @returns undefined when it is not to be seen
 */
export async function findSocketOwner(
  socketPath: string,
  {
    hostRoot = '/',
    procRoot = '/proc',
  }: { readonly procRoot?: string; readonly hostRoot?: string } = {},
): Promise<SocketOwner | undefined> {
  const seen = join(hostRoot, socketPath);
  const path = asOnNode(await realpath(seen).catch(() => seen), hostRoot);
  const sockets = await readFile(join(procRoot, 'net/unix'), 'utf8').catch(() => '');
  const inodes = sockets
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[7] === path || fields[7] === socketPath)
    .map((fields) => `socket:[${fields[6] ?? ''}]`);
  if (inodes.length === 0) return undefined;
  const names = await readdir(procRoot).catch(() => []);
  for (const name of names.filter((each) => /^\d+$/.test(each))) {
    const descriptors = join(procRoot, name, 'fd');
    for (const descriptor of await readdir(descriptors).catch(() => [])) {
      const target = await readlink(join(descriptors, descriptor)).catch(() => '');
      if (inodes.includes(target)) return describe(procRoot, name);
    }
  }
  return undefined;
}

async function describe(procRoot: string, name: string): Promise<SocketOwner | undefined> {
  const partsOf = async (file: string): Promise<string[]> => {
    const text = await readFile(join(procRoot, name, file), 'utf8');
    return text.split('\0').filter((part) => part !== '');
  };
  try {
    const entries = (await partsOf('environ')).map((entry) => {
      const at = entry.indexOf('=');
      return [entry.slice(0, at), entry.slice(at + 1)];
    });
    return {
      pid: Number(name),
      arguments: await partsOf('cmdline'),
      environment: Object.fromEntries(entries) as Record<string, string>,
    };
  } catch {
    return undefined;
  }
}

/** The value of `--name value`, `--name=value` or `-n value`. */
export function flagIn(
  arguments_: readonly string[],
  names: readonly string[],
): string | undefined {
  for (const [index, argument] of arguments_.entries()) {
    const [name = '', ...rest] = argument.split('=');
    if (!names.includes(name)) continue;
    return rest.length > 0 ? rest.join('=') : arguments_[index + 1];
  }
  return undefined;
}
