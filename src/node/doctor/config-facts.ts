import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { readConfigFiles } from '../containerd-config/config-files.ts';
import { readContainerdConfig } from '../containerd-config/containerd-config.ts';
import { containerdRelease } from '../containerd-config/containerd-release.ts';
import { versionOf } from '../containerd-config/image-settings.ts';
import { tableIn } from '../toml-table.ts';
import type { Facts } from './facts.ts';

const OLD_TABLE = ['plugins', 'io.containerd.grpc.v1.cri'];
/** What has moved out of that table. Others, such as stream_server_port, stay in it. */
const MOVED = ['registry', 'containerd', 'max_concurrent_downloads', 'image_pull_with_sync_fs'];

/**
 * Reads how containerd is set up, for {@link Facts}.
 *
 * @param options.isOnNode files that are missing here are missing on the node
 * @throws when that cannot be seen from here
 */
export async function gatherConfig(options: {
  readonly path: string;
  readonly version: string | undefined;
  readonly hostRoot: string;
  readonly isOnNode: boolean;
  readonly lazySnapshotters: ReadonlySet<string>;
}): Promise<Facts['config']> {
  const { hostRoot, lazySnapshotters, path, version } = options;
  const config = await readContainerdConfig({
    path,
    hostRoot,
    ...(version === undefined ? {} : { version }),
  });
  if (config.files.length === 0 && config.problems.length === 0 && !options.isOnNode) {
    throw new Error(
      `${path} is not to be seen from here: run it on the node itself, or name its / as --host-root`,
    );
  }
  const { files } = await readConfigFiles(path, { hostRoot });
  // A file of the newest version that the release knows is not brought up to date.
  const newest = containerdRelease(version).isAtLeast('2.3.0') ? 4 : 3;
  const ignoredTables = files
    .filter(({ content }) => versionOf(content) >= newest)
    .filter(({ content }) => MOVED.some((key) => key in tableIn(content, OLD_TABLE)))
    .map((file) => file.path);
  const isOneDirectory =
    config.roots.length > 1 &&
    (await stat(join(hostRoot, config.configPath)).then(
      (found) => found.isDirectory(),
      () => false,
    ));
  return {
    ...config,
    ignoredTables,
    isLazySnapshotter: lazySnapshotters.has(config.snapshotter),
    isOneDirectory,
  };
}

/** The directories that are looked through for hosts.toml. */
export function rootsOf(config: Facts['config']): readonly string[] {
  if (config.pullsWith === 'client' || config.roots.length < 2) return config.roots;
  return config.isOneDirectory ? [config.configPath] : config.roots;
}
