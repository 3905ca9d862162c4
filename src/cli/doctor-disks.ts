import { access, constants, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import { readDiskUsage, usedPercent, type DiskUsage } from '../agent/disk-usage.ts';
import type { Config } from '../config/schema.ts';
import type { DiskFact, Facts } from '../node/doctor/facts.ts';
import { seenAt } from '../node/doctor/host-root.ts';

/**
 * Looks how full the disks are that content and state are on.
 *
 * @param client undefined: content is not in containerd
 */
export async function gatherDisks(
  place: { readonly config: Config; readonly hostRoot: string; readonly signal: AbortSignal },
  client: Pick<ContainerdClient, 'contentPath'> | undefined,
): Promise<Facts['disks']> {
  const { config, hostRoot, signal } = place;
  const statePath = config.node.stateDirectory;
  const stateFailure = await mkdir(statePath, { recursive: true })
    .then(() => access(statePath, constants.W_OK))
    .then(
      () => '',
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  const content =
    client === undefined
      ? config.agent.store.directory.path
      : config.agent.store.containerd.contentPath ||
        (await client.contentPath({ signal }).then((path) => path && seenAt(path, hostRoot)));
  const all: DiskFact[] = [];
  const look = async (of: DiskFact['of'], path: string): Promise<void> => {
    const usage = await usageAt(path);
    const { availableBytes } = usage;
    all.push({ of, path, usedPercent: usedPercent(usage), availableBytes });
  };
  if (content !== undefined) await look('content', content);
  if (stateFailure === '') await look('state', statePath);
  return { all, stateFailure, statePath };
}

/** containerd makes its directory with the first image: its root is on the same disk. */
async function usageAt(path: string): Promise<DiskUsage> {
  return readDiskUsage(path).catch((error: unknown) => {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!isMissing) throw error;
    return readDiskUsage(dirname(path));
  });
}
