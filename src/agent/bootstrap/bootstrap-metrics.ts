import { Counter, type Registry } from 'prom-client';
import type { BodyEnd } from './blob-body.ts';

/** What became of a request, in a word: for the log and the metrics. */
export type BootstrapResult =
  | 'manifest'
  | 'blob'
  | 'base'
  | 'missing'
  | 'not_allowed'
  | 'wrong_role'
  | 'expired'
  | 'busy'
  | 'store'
  | 'unsupported'
  | 'bad_method'
  | 'bad_request'
  | 'bad_range'
  | 'unreadable'
  | 'failed'
  | Exclude<BodyEnd, 'complete'>;

/** What the bootstrap listener counts. */
export type BootstrapMetrics = ReturnType<typeof createBootstrapMetrics>;

/** Registers the metrics of the bootstrap listener. */
export function createBootstrapMetrics(register: Registry) {
  const registers = [register];
  return {
    requests: new Counter({
      name: 'salvor_agent_bootstrap_requests_total',
      help: 'Requests of nodes that Salvor has not come to yet, by what became of them.',
      labelNames: ['result'],
      registers,
    }),
    bytes: new Counter({
      name: 'salvor_agent_bootstrap_sent_bytes_total',
      help: 'Bytes of manifests and blobs sent to nodes that Salvor has not come to yet.',
      registers,
    }),
  };
}
