import { access, constants } from 'node:fs/promises';
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
  const stateFailure = await atNearest(statePath, (path) => access(path, constants.W_OK)).then(
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
    const usage: DiskUsage = await atNearest(path, readDiskUsage);
    const { availableBytes } = usage;
    all.push({ of, path, usedPercent: usedPercent(usage), availableBytes });
  };
  if (content !== undefined) await look('content', content);
  if (stateFailure === '') await look('state', statePath);
  return { all, stateFailure, statePath };
}

/**
 * Looks at a directory or, where it will be made with the first image or by the agent, at the nearest
 * one above it: a doctor makes nothing.
 */
async function atNearest<T>(path: string, look: (path: string) => Promise<T>): Promise<T> {
  return look(path).catch((error: unknown) => {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    if (!isMissing || dirname(path) === path) throw error;
    return atNearest(dirname(path), look);
  });
}
