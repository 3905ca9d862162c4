import { Counter, Gauge, type Registry } from 'prom-client';

/** What is counted of backfill and repair. Labels are bounded: never a digest or an image. */
export type BackfillMetrics = ReturnType<typeof createBackfillMetrics>;

/** Registers the metrics of backfill and repair. */
export function createBackfillMetrics(register: Registry) {
  const registers = [register];
  return {
    incompleteImages: new Gauge({
      name: 'salvor_agent_images_incomplete',
      help: 'Images on this node of which content is missing, lost or wrong.',
      registers,
    }),
    blobsLeft: new Gauge({
      name: 'salvor_agent_backfill_left_blobs',
      help: 'Blobs that are to be fetched, by what is wrong with them.',
      labelNames: ['damage'],
      registers,
    }),
    bytesLeft: new Gauge({
      name: 'salvor_agent_backfill_left_bytes',
      help: 'Bytes that are to be fetched, by what is wrong with their blobs.',
      labelNames: ['damage'],
      registers,
    }),
    bytes: new Counter({
      name: 'salvor_agent_backfill_fetched_bytes_total',
      help: 'Bytes that were fetched to complete this node, of failed tries, too.',
      registers,
    }),
    restored: new Counter({
      name: 'salvor_agent_backfill_restored_total',
      help: 'Blobs that were put right, by what was wrong with them.',
      labelNames: ['damage'],
      registers,
    }),
    failures: new Counter({
      name: 'salvor_agent_backfill_failures_total',
      help: 'Blobs that could not be put right, by what was wrong with them and why not.',
      labelNames: ['damage', 'reason'],
      registers,
    }),
    stopped: new Gauge({
      name: 'salvor_agent_backfill_disk_pressure',
      help: 'Whether nothing is fetched because the disk is too full: 1, else 0.',
      registers,
    }),
  };
}
