import { SourceError } from '../sources/source.ts';
import { errors } from './undici.ts';

/** The ways in which an upstream gives no usable answer. */
export type UpstreamFailureKind =
  | 'refused'
  | 'reset'
  | 'dns'
  | 'tls'
  | 'timeout'
  | 'forbidden_address'
  | 'server_error'
  | 'rate_limited'
  | 'redirect'
  | 'cut'
  | 'bad_answer'
  | 'token_service'
  | 'circuit_open'
  | 'cancelled';

/** The upstream could not be asked, or answered with nothing that helps. */
export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure';
  readonly kind: UpstreamFailureKind;
  /** Where the failure is an answer with a status. */
  readonly status: number | undefined;
  /** The upstream's Retry-After, verbatim. */
  readonly retryAfter: string | undefined;
  /** "host:port" that failed, where that is known: the registry itself, or where it redirects. */
  readonly origin: string | undefined;
  /**
   * The upstream is proven not to answer this request: two failures on separate connections, some
   * time apart, and nobody else got an answer from it meanwhile.
   */
  readonly isProven: boolean;

  constructor(
    kind: UpstreamFailureKind,
    message: string,
    options: ErrorOptions & {
      readonly status?: number | undefined;
      readonly retryAfter?: string | undefined;
      readonly origin?: string | undefined;
      readonly isProven?: boolean;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.status = options.status;
    this.retryAfter = options.retryAfter;
    this.origin = options.origin;
    this.isProven = options.isProven ?? false;
  }

  /** Whether it says something about the upstream being down, rather than about one request. */
  get isOutageSign(): boolean {
    return OUTAGE_SIGNS.has(this.kind);
  }

  /** The same failure, as the proof that it has become. */
  proven(): UpstreamFailure {
    const { cause, status, retryAfter, origin } = this;
    const options = { cause, status, retryAfter, origin, isProven: true };
    return new UpstreamFailure(this.kind, this.message, options);
  }

  /**
   * The one door through which errors of the HTTP client enter.
   *
   * @param host for the message
   */
  static from(error: unknown, host: string): UpstreamFailure {
    if (error instanceof UpstreamFailure) return error;
    if (error instanceof SourceError) {
      return new UpstreamFailure('bad_answer', error.message, { cause: error, origin: host });
    }
    const { code, name } = error as { code?: string; name?: string };
    const isOurs = name === 'AbortError' || CLIENT_IS_CLOSED.has(code ?? '');
    const kind = isOurs ? 'cancelled' : kindOf(error, code ?? '');
    const reason = REASONS[kind] ?? (error instanceof Error ? error.message : String(error));
    const suffix = typeof code === 'string' ? ` (${code})` : '';
    return new UpstreamFailure(kind, `${host} ${reason}${suffix}`, { cause: error, origin: host });
  }
}

/** This side has closed its connections: no word about the other one. */
const CLIENT_IS_CLOSED: ReadonlySet<string> = new Set(['UND_ERR_DESTROYED', 'UND_ERR_CLOSED']);

const OUTAGE_SIGNS: ReadonlySet<UpstreamFailureKind> = new Set([
  'refused',
  'reset',
  'dns',
  'tls',
  'timeout',
  'server_error',
  'cut',
]);

const REASONS: Readonly<Partial<Record<UpstreamFailureKind, string>>> = {
  refused: 'refused the connection',
  reset: 'reset the connection',
  dns: 'could not be found in DNS',
  tls: 'failed the TLS handshake',
  timeout: 'gave no answer in time',
  cut: 'ended the answer too early',
};

function kindOf(error: unknown, code: string): UpstreamFailureKind {
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'timeout';
  if (error instanceof errors.ConnectTimeoutError) return 'timeout';
  if (error instanceof errors.HeadersTimeoutError) return 'timeout';
  if (error instanceof errors.HTTPParserError) return 'bad_answer';
  if (error instanceof AggregateError) {
    const inner = error.errors[0] as { code?: string } | undefined;
    return kindOf(inner, inner?.code ?? code);
  }
  if (code === 'ECONNREFUSED' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return 'refused';
  }
  if (code === 'ETIMEDOUT' || code === 'ENETDOWN') return 'timeout';
  if (['ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL', 'EAI_NODATA'].includes(code)) return 'dns';
  if (/^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|EPROTO)/.test(code)) return 'tls';
  return 'reset';
}
