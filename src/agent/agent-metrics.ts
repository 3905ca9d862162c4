import { Counter, Gauge, type Registry } from 'prom-client';

/** What an agent counts. Labels are bounded: never a digest, a repository or a node. */
export type AgentMetrics = ReturnType<typeof createAgentMetrics>;

/**
 * Registers an agent's metrics.
 *
 * @param sources.isFileUsable whether what registries confirm outlives the process; left out where
 *   there is no such file
 */
export function createAgentMetrics(
  register: Registry,
  sources: { readonly isFileUsable?: (() => boolean) | undefined } = {},
) {
  const registers = [register];
  return {
    calls: new Counter({
      name: 'salvor_agent_calls_total',
      help: 'Calls that this agent has answered, blobs over connections of their own too, by method and gRPC status code.',
      labelNames: ['method', 'code'],
      registers,
    }),
    bytesSent: new Counter({
      name: 'salvor_agent_sent_bytes_total',
      help: 'Bytes of blobs that this agent has sent to registries.',
      registers,
    }),
    readers: new Gauge({
      name: 'salvor_agent_readers',
      help: 'Blobs being read from this agent at this moment.',
      registers,
    }),
    corruptBlobs: new Counter({
      name: 'salvor_agent_corrupt_blobs_total',
      help: 'Blobs whose bytes on this node were found not to match their digest.',
      registers,
    }),
    refusedConnections: new Counter({
      name: 'salvor_agent_refused_connections_total',
      help:
        'Connections to the port for other nodes that came to nothing: certificate, ' +
        'no_certificate, protocol, own_certificate (the other side does not accept ours), slow, ' +
        'crowd (too many of one host).',
      labelNames: ['reason'],
      registers,
    }),
    observationFile: new Gauge({
      name: 'salvor_agent_observation_file_usable',
      help: 'Whether what registries confirm about tags is kept on disk: 1, else 0.',
      registers,
      collect() {
        this.reset();
        if (sources.isFileUsable === undefined) this.remove();
        else this.set(sources.isFileUsable() ? 1 : 0);
      },
    }),
    registriesEnded: new Counter({
      name: 'salvor_agent_registries_ended_total',
      help: 'Times that this agent ended a registry process that had fallen silent.',
      registers,
    }),
  };
}
