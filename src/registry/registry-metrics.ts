import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What a registry counts. Labels are bounded: never a digest, a repository or a node. */
export type RegistryMetrics = ReturnType<typeof createRegistryMetrics>;

/** Registers a registry's metrics. */
export function createRegistryMetrics(register: Registry) {
  const registers = [register];
  return {
    requests: new Counter({
      name: 'salvor_registry_requests_total',
      help: 'Requests answered, by what was asked for, the decision and the status.',
      labelNames: ['kind', 'decision', 'status'],
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'salvor_registry_first_byte_seconds',
      help: 'Time until the headers of an answer were sent.',
      labelNames: ['kind'],
      buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 2, 5, 10, 25],
      registers,
    }),
    bytes: new Counter({
      name: 'salvor_registry_sent_bytes_total',
      help: 'Bytes of bodies sent to clients, by where they came from.',
      labelNames: ['source'],
      registers,
    }),
    bodies: new Counter({
      name: 'salvor_registry_bodies_total',
      help: 'Streamed bodies, by how they ended.',
      labelNames: ['end'],
      registers,
    }),
    streams: new Gauge({
      name: 'salvor_registry_streams',
      help: 'Requests being answered at this moment.',
      registers,
    }),
    outages: new Gauge({
      name: 'salvor_registry_upstreams_in_outage',
      help: 'Upstreams that are proven not to answer at this moment.',
      registers,
    }),
  };
}
