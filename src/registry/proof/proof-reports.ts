import { Counter, type Registry } from 'prom-client';
import type { Logger } from '../../telemetry/logger.ts';
import type { EndedRequest, RequestEnd } from '../request-reports.ts';

/** Counts requests of proofs on their own: they are no pulls, and nothing is saved by them. */
export class ProofReports {
  readonly #requests: Counter<'kind' | 'status'>;
  readonly #bytes: Counter;
  readonly #log: Pick<Logger, 'debug'>;

  constructor(dependencies: { register: Registry; log: Pick<Logger, 'debug'> }) {
    const registers = [dependencies.register];
    this.#log = dependencies.log;
    this.#requests = new Counter({
      name: 'salvor_registry_proof_requests_total',
      help: 'Requests of proofs that were answered, by what was asked for and the status.',
      labelNames: ['kind', 'status'],
      registers,
    });
    this.#bytes = new Counter({
      name: 'salvor_registry_proof_sent_bytes_total',
      help: 'Bytes of bodies that were read from nodes for proofs.',
      registers,
    });
  }

  /** A request is over. */
  add(ended: EndedRequest, end: RequestEnd): void {
    const { answer, headersMs, kind, sent } = end;
    const { decision, status } = answer;
    this.#requests.inc({ kind, status });
    this.#bytes.inc(sent.bytes);
    const url = (ended.request.raw.url ?? '').slice(0, 512);
    const source = answer.source?.() ?? 'none';
    const fields = { url, status, decision, source, tried: ended.trace.attempts, headersMs };
    this.#log.debug({ ...fields, end: sent.end, bytes: sent.bytes }, 'request of a proof');
  }
}
