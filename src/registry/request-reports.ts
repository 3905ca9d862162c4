import type { FastifyRequest } from 'fastify';
import type { parseV2Url, V2Request } from '../oci/path.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Answer } from './answer.ts';
import type { SentBody } from './body-writer.ts';
import type { DecisionLog } from './decision-log.ts';
import type { PullRequest } from './pull-request.ts';
import type { RegistryMetrics } from './registry-metrics.ts';
import type { Savings } from './savings.ts';
import type { Trace } from './trace.ts';

/** A request that is over. */
export interface EndedRequest {
  readonly request: Pick<FastifyRequest, 'method' | 'raw'>;
  readonly parsed: ReturnType<typeof parseV2Url>;
  readonly trace: Trace;
  /** What counted for it, if it named no registry. */
  readonly routing: { readonly defaultUpstream: string };
  /** Where it had become one, for something that an upstream has. */
  readonly pull?: PullRequest;
}

/** What became of it. */
export interface RequestEnd {
  /** What was asked for, or "invalid". */
  readonly kind: string;
  readonly answer: Answer;
  readonly sent: SentBody;
  /** Until the headers were sent, milliseconds. */
  readonly headersMs: number;
}

/** Says of each request what became of it: a line of the log, metrics, the ring of decisions. */
export class RequestReports {
  readonly #decisions: Pick<DecisionLog, 'add'>;
  readonly #metrics: Pick<RegistryMetrics, 'requests' | 'bodies' | 'bytes'>;
  readonly #savings: Pick<Savings, 'note'>;
  readonly #log: Pick<Logger, 'info' | 'error'>;

  constructor(dependencies: {
    decisions: Pick<DecisionLog, 'add'>;
    metrics: Pick<RegistryMetrics, 'requests' | 'bodies' | 'bytes'>;
    savings: Pick<Savings, 'note'>;
    log: Pick<Logger, 'info' | 'error'>;
  }) {
    this.#decisions = dependencies.decisions;
    this.#metrics = dependencies.metrics;
    this.#savings = dependencies.savings;
    this.#log = dependencies.log;
  }

  /** A request is over. */
  add(ended: EndedRequest, end: RequestEnd): void {
    const { parsed, pull, request, trace } = ended;
    const { answer, headersMs, kind, sent } = end;
    const { status, decision } = answer;
    const source = answer.source?.() ?? 'none';
    this.#metrics.requests.inc({ kind, decision, status });
    this.#metrics.bodies.inc({ end: sent.end });
    this.#metrics.bytes.inc({ source: sourceKind(source) }, sent.bytes);
    const isComplete = status < 300 && sent.end === 'complete';
    const fallback = pull && this.#savings.note(pull, { kind, source, isComplete });
    const outcome = {
      status,
      decision,
      source,
      ...(fallback === undefined ? {} : { fallback }),
      tried: trace.attempts,
      end: sent.end,
      bytes: sent.bytes,
      headersMs,
      totalMs: trace.elapsedMs(),
    };
    const fields = {
      method: request.method,
      url: (request.raw.url ?? '').slice(0, 512),
      ...outcome,
      ...(sent.error === undefined ? {} : { err: sent.error }),
    };
    if (sent.end === 'wrong_bytes') this.#log.error(fields, 'request');
    else this.#log.info(fields, 'request');
    if (parsed.ok) this.#remember(ended, parsed.value, { ...outcome, error: answer.error });
  }

  #remember(
    { request, routing }: EndedRequest,
    { ns, registry, target }: V2Request,
    { error, ...outcome }: Outcome & { readonly error: string | undefined },
  ): void {
    if (target.kind !== 'manifest' && target.kind !== 'blob') return;
    this.#decisions.add({
      at: new Date().toISOString(),
      method: request.method,
      kind: target.kind,
      registry: ns ?? registry ?? routing.defaultUpstream,
      repository: target.repository,
      reference:
        target.kind === 'blob' ? target.digest : (target.reference.digest ?? target.reference.tag),
      ...outcome,
      ...(error === undefined ? {} : { error }),
    });
  }
}

/** What the log and the ring of decisions say alike. */
type Outcome = Omit<
  Parameters<DecisionLog['add']>[0],
  'at' | 'method' | 'kind' | 'registry' | 'repository' | 'reference' | 'error'
>;

function sourceKind(source: string): string {
  if (source.includes('node/')) return source.includes('upstream') ? 'both' : 'node';
  return source;
}
