import { SourceError } from '../sources/source.ts';
import { ProxyError } from './proxy.ts';
import { errors } from './undici.ts';

/** The ways in which an upstream gives no usable answer. */
export type UpstreamFailureKind =
  | 'refused'
  | 'reset'
  | 'dns'
  | 'tls'
  | 'timeout'
  | 'proxy'
  | 'gateway'
  | 'local'
  | 'forbidden_address'
  | 'server_error'
  | 'rate_limited'
  | 'redirect'
  | 'cut'
  | 'bad_answer'
  | 'token_service'
  | 'circuit_open'
  | 'cancelled';

/** Those that say that nobody could ask the upstream now, rather than something about one request. */
export const OUTAGE_SIGNS = [
  'refused',
  'reset',
  'dns',
  'tls',
  'timeout',
  'proxy',
  'gateway',
  'server_error',
  'cut',
] as const satisfies readonly UpstreamFailureKind[];

/**
 * What an error of the HTTP client comes to.
 *
 * @param signal of the request; without it, whatever looks like an abort of ours is one
 */
export function failureKind(error: unknown, signal?: AbortSignal): UpstreamFailureKind {
  if (error instanceof SourceError) return 'bad_answer';
  const code = codeOf(error);
  if (CLIENT_IS_CLOSED.has(code) || isAbort(error, signal)) return 'cancelled';
  return error instanceof ProxyError ? kindOfProxy(error) : kindOf(error);
}

/** The failure in words: what happened, and what to do where that is not plain. */
export function failureMessage(error: unknown, kind: UpstreamFailureKind, host: string): string {
  if (error instanceof SourceError) return error.message;
  if (error instanceof ProxyError) return messageOfProxy(error, kind, host);
  const code = codeOf(error);
  const own = error instanceof Error ? error.message : String(error);
  if (kind === 'bad_answer' && code.startsWith(SOCKS)) return messageOfSocks(own, code, host);
  const reason = kind === 'local' ? SHORTAGES.get(code) : REASONS[kind];
  return `${host} ${reason ?? own}${code === '' ? '' : ` (${code})`}`;
}

/** This side has closed its connections: no word about the other one. */
const CLIENT_IS_CLOSED: ReadonlySet<string> = new Set(['UND_ERR_DESTROYED', 'UND_ERR_CLOSED']);

/** How the codes of what a SOCKS proxy says begin. */
const SOCKS = 'UND_ERR_SOCKS5';
const PROXY_VARIABLE = 'HTTPS_PROXY or HTTP_PROXY of the environment';

/** Somebody has answered, or was not to be asked like that: no sign of an outage. */
const NONSENSE: ReadonlySet<string> = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
  'UND_ERR_INVALID_ARG',
]);

const REASONS: Readonly<Partial<Record<UpstreamFailureKind, string>>> = {
  refused: 'refused the connection',
  reset: 'reset the connection',
  dns: 'could not be found in DNS',
  tls: 'failed the TLS handshake',
  timeout: 'gave no answer in time',
  cut: 'ended the answer too early',
  gateway: 'cannot be reached, says the SOCKS proxy of the environment',
};

const NO_MEMORY = 'was not asked: this machine has no memory left for a connection';
const NOT_LET =
  'was not asked: this machine does not let this process connect there; ' +
  'look at its firewall and at what confines the process';

/** What this machine is out of, or does not let this process do: no word about the other side. */
const SHORTAGES: ReadonlyMap<string, string> = new Map([
  ['EMFILE', 'was not asked: this process has as many files open as it may; raise that limit'],
  ['ENFILE', 'was not asked: this machine has as many files open as it may; raise fs.file-max'],
  [
    'EADDRNOTAVAIL',
    'was not asked: this machine has no port or address left for a connection; ' +
      'look at what holds so many, or widen net.ipv4.ip_local_port_range',
  ],
  ['ENOBUFS', NO_MEMORY],
  ['ENOMEM', NO_MEMORY],
  ['EAI_MEMORY', NO_MEMORY],
  ['EPERM', NOT_LET],
  ['EACCES', NOT_LET],
]);

function codeOf(error: unknown): string {
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code === 'string' && !(error instanceof AggregateError)) return code;
  const inner = innerOf(error);
  if (inner !== undefined) return codeOf(inner);
  return typeof code === 'string' ? code : '';
}

/** What an error stands for: that of a proxy; of several addresses, the one that got furthest. */
function innerOf(error: unknown): unknown {
  if (error instanceof ProxyError) return error.cause;
  if (!(error instanceof AggregateError)) return undefined;
  const all: readonly unknown[] = error.errors;
  return all.find((one) => kindOf(one) !== 'local') ?? all[0];
}

/** undici calls its own trouble an abort as well: ours is known by its signal. */
function isAbort(error: unknown, signal: AbortSignal | undefined): boolean {
  if (!(error instanceof DOMException) || error.name !== 'AbortError') return false;
  return signal?.aborted ?? true;
}

function kindOf(error: unknown): UpstreamFailureKind {
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'timeout';
  if (error instanceof errors.ConnectTimeoutError) return 'timeout';
  if (error instanceof errors.HeadersTimeoutError) return 'timeout';
  if (error instanceof errors.HTTPParserError) return 'bad_answer';
  const code = codeOf(error);
  if (SHORTAGES.has(code)) return 'local';
  if (NONSENSE.has(code)) return 'bad_answer';
  // RFC 1928, 6: it failed, the network, the host, the port, the hops; any other is a refusal.
  if (/^UND_ERR_SOCKS5_REPLY_[13-6]$/.test(code)) return 'gateway';
  if (code.startsWith(SOCKS)) return 'bad_answer';
  if (code === 'ECONNREFUSED' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return 'refused';
  }
  if (code === 'ETIMEDOUT' || code === 'ENETDOWN') return 'timeout';
  if (['ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL', 'EAI_NODATA'].includes(code)) return 'dns';
  if (/^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|EPROTO)/.test(code)) return 'tls';
  return 'reset';
}

function kindOfProxy({ cause, status }: ProxyError): UpstreamFailureKind {
  if (status !== undefined) return status >= 500 ? 'gateway' : 'bad_answer';
  // Silence may be that of what is behind it.
  if (cause instanceof DOMException && cause.name === 'TimeoutError') return 'timeout';
  const kind = kindOf(cause);
  return kind === 'local' || kind === 'bad_answer' ? kind : 'proxy';
}

function messageOfSocks(own: string, code: string, host: string): string {
  return (
    `The SOCKS proxy of the environment does not lead to ${host}: ${own} (${code}); ` +
    `look at its URL in ${PROXY_VARIABLE}, or list the host in NO_PROXY`
  );
}

function messageOfProxy(error: ProxyError, kind: UpstreamFailureKind, host: string): string {
  const { cause, proxy, status } = error;
  if (kind === 'local') return failureMessage(cause, kind, `The proxy ${proxy}`);
  if (kind === 'timeout') return `The proxy ${proxy} did not reach ${host} in time`;
  if (kind === 'gateway') return `The proxy ${proxy} cannot reach ${host} (${status})`;
  if (kind === 'proxy') {
    return failureMessage(cause, kindOf(cause), `The proxy ${proxy} on the way to ${host}`);
  }
  switch (status) {
    case 407:
      return (
        `The proxy ${proxy} wants credentials before it leads to ${host} (407); ` +
        `put them into its URL in ${PROXY_VARIABLE}, as http://user:password@${proxy}`
      );
    case 403:
      return (
        `The proxy ${proxy} does not lead to ${host} (403); ` +
        'have it allowed there, or list the host in NO_PROXY'
      );
    case undefined:
      return `The proxy ${proxy} speaks no HTTP; look at its URL in ${PROXY_VARIABLE}`;
    default:
      return (
        `The proxy ${proxy} answers ${status} and does not lead to ${host}; ` +
        `look at its URL in ${PROXY_VARIABLE}, or list the host in NO_PROXY`
      );
  }
}
