import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import type { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { DiskWatch, readDiskUsage } from '../agent/disk-usage.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Service } from './service-group.ts';

/** The watch on the file system that containerd's content is on, shared by all who mind it. */
export function contentDisk(
  config: Pick<Config['agent'], 'diskIntervalMs' | 'store'>,
  dependencies: { readonly containerd: ContainerdConnection; readonly log: Logger },
): { readonly watch: DiskWatch; readonly service: Service } {
  const client = new ContainerdClient(dependencies.containerd);
  let path = config.store.containerd.contentPath;
  const read = async (): ReturnType<typeof readDiskUsage> => {
    if (path === '') path = (await client.contentPath({})) ?? '';
    if (path === '') throw new Error('Cannot find the content of containerd: it names no path');
    return readDiskUsage(path);
  };
  const watch = new DiskWatch(
    { intervalMs: config.diskIntervalMs },
    { read, clock: systemClock, log: dependencies.log },
  );
  const service: Service = {
    name: 'disk watch',
    start: async () => watch.start(),
    stop: () => watch.stop(),
  };
  return { watch, service };
}
