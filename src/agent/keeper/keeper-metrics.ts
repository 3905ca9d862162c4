import { Counter, type Registry } from 'prom-client';

/** What the keeper counts. */
export type KeeperMetrics = ReturnType<typeof createKeeperMetrics>;

/** Registers the keeper's metrics. */
export function createKeeperMetrics(register: Registry) {
  const registers = [register];
  return {
    labels: new Counter({
      name: 'salvor_agent_keeper_labels_restored_total',
      help: 'References to layers that containerd had left out and that were put back.',
      registers,
    }),
    images: new Counter({
      name: 'salvor_agent_keeper_images_total',
      help:
        'Images looked at because a blob of theirs was pulled, by result: restored, complete ' +
        '(nothing was missing), absent (its manifest is not in the store yet), unknown (no ' +
        'manifest lists the blob), failed.',
      labelNames: ['result'],
      registers,
    }),
  };
}
