import { join } from 'node:path';

import { findFile } from '../hosts/found-file.ts';
import { findDirectories } from '../hosts/registry-directory.ts';
import { DEFAULT_DIRECTORY } from '../hosts/registry-directory.ts';
import { RefusalError } from '../hosts/hosts-toml.ts';
import type { Facts, HostsDirectory } from './facts.ts';

/**
 * Reads every hosts.toml that counts below the directories of config_path.
 *
 * @param options.hostRoot directory under which the node's own "/" is
 * @throws when a directory cannot be read
 */
export async function gatherHosts(
  roots: readonly string[],
  options: { readonly hostRoot: string; readonly version: string | undefined },
): Promise<Facts['hosts']> {
  const { hostRoot, version } = options;
  const here = roots.map((root) => join(hostRoot, root));
  const found = await findDirectories(here);
  const asOnNode = (path: string): string =>
    hostRoot === '/' ? path : `/${path.slice(hostRoot.length).replace(/^\/+/, '')}`;
  const directories: HostsDirectory[] = [];
  for (const { path, realPath, registry } of found.directories) {
    const place = { path: asOnNode(path), registry };
    try {
      const { bytes } = await findFile(join(realPath, 'hosts.toml'));
      directories.push({ ...place, text: bytes?.toString('utf8') });
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error;
      directories.push({ ...place, text: undefined, failure: error.reason });
    }
  }
  return {
    directories,
    passedOver: found.passedOver.map(({ path, reason }) => ({ path: asOnNode(path), reason })),
    defaultPath: join(asOnNode(found.defaultRoot), DEFAULT_DIRECTORY, 'hosts.toml'),
    version,
  };
}
