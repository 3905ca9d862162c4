import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What a registry counts. Labels are bounded: never a digest, a repository or a node. */
export type RegistryMetrics = ReturnType<typeof createRegistryMetrics>;

/** What a metric shows of one upstream. */
export interface UpstreamState {
  readonly name: string;
  /** When its outage began, milliseconds since the epoch; undefined when there is none. */
  readonly outageSinceMs: number | undefined;
  /** How many requests its endpoints said they would still answer; those that said nothing left out. */
  readonly rateLimitRemaining: readonly number[];
}

/** Stands for every registry that the configuration does not name. */
const OTHER = 'other';

/**
 * Registers a registry's metrics.
 *
 * @param sources.configured names of registries that the configuration describes
 * @param sources.upstreams those that have been asked for; looked at when metrics are read
 */
export function createRegistryMetrics(
  register: Registry,
  sources: {
    readonly configured: () => readonly string[];
    readonly upstreams: () => readonly UpstreamState[];
  },
) {
  const registryLabel = (name: string): string =>
    name === 'docker.io' || sources.configured().includes(name) ? name : OTHER;
  const registers = [register];
  return {
    /** The value of the label "registry" for a registry's name. */
    registryLabel,
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
    inFlightBytes: new Gauge({
      name: 'salvor_registry_in_flight_bytes',
      help: 'Bytes held, or set aside, for the requests that are being answered.',
      registers,
    }),
    outage: new Gauge({
      name: 'salvor_registry_upstream_outage',
      help: 'Whether the upstream is proven not to answer at this moment: 1, else 0.',
      labelNames: ['registry'],
      registers,
      collect() {
        this.reset();
        for (const { name, outageSinceMs } of sources.upstreams()) {
          // Several registries may share a label: one in outage is enough.
          this.inc({ registry: registryLabel(name) }, 0);
          if (outageSinceMs !== undefined) this.set({ registry: registryLabel(name) }, 1);
        }
      },
    }),
    outageStart: new Gauge({
      name: 'salvor_registry_upstream_outage_start_timestamp_seconds',
      help: "When the upstream's outage began, in seconds since the epoch; absent while it is up.",
      labelNames: ['registry'],
      registers,
      collect() {
        this.reset();
        const states = sources.upstreams();
        // Of several with one label, the one that has been down longest counts.
        const newestFirst = states.toSorted(
          (a, b) => (b.outageSinceMs ?? 0) - (a.outageSinceMs ?? 0),
        );
        for (const { name, outageSinceMs } of newestFirst) {
          if (outageSinceMs === undefined) continue;
          this.set({ registry: registryLabel(name) }, outageSinceMs / 1000);
        }
      },
    }),
    rateLimitRemaining: new Gauge({
      name: 'salvor_registry_upstream_rate_limit_remaining',
      help: 'Requests left in the window of a rate limit, as the upstream said last; the least of several.',
      labelNames: ['registry'],
      registers,
      collect() {
        this.reset();
        const least = new Map<string, number>();
        for (const { name, rateLimitRemaining } of sources.upstreams()) {
          const registry = registryLabel(name);
          for (const remaining of rateLimitRemaining) {
            least.set(registry, Math.min(remaining, least.get(registry) ?? remaining));
          }
        }
        for (const [registry, remaining] of least) this.set({ registry }, remaining);
      },
    }),
    outages: new Counter({
      name: 'salvor_registry_upstream_outages_total',
      help: 'Outages of the upstream that were proven, by what proved them.',
      labelNames: ['registry', 'cause'],
      registers,
    }),
    savedRequests: new Counter({
      name: 'salvor_registry_saved_requests_total',
      help: 'Requests answered in full by nodes or memory that the upstream alone would have failed.',
      labelNames: ['registry', 'kind'],
      registers,
    }),
    fallbacks: new Counter({
      name: 'salvor_registry_fallbacks_total',
      help: 'Answers, or the rest of them, that came from nodes or memory, by what was wrong upstream.',
      labelNames: ['cause'],
      registers,
    }),
  };
}
