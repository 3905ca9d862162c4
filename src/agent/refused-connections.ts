import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Logger } from '../telemetry/logger.ts';
import type { AgentMetrics } from './agent-metrics.ts';
import type { Remote, TlsListener } from './connection-gate.ts';
import { Seldom } from '../telemetry/seldom.ts';

/** Why a connection came to nothing before there was a call. */
export interface Refusal {
  readonly reason:
    'certificate' | 'no_certificate' | 'protocol' | 'own_certificate' | 'slow' | 'crowd';
  /** For people. */
  readonly why: string;
}

/** The same refusal of the same host is logged once in this time, milliseconds. */
const QUIET_MS = 60_000;
const MAX_HOSTS = 1000;

/** What OpenSSL finds wrong with a client's certificate, in words. */
const CERTIFICATE_FAULTS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet: are the clocks right?',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is by no authority in tls.ca',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is by no authority in tls.ca',
  UNABLE_TO_GET_ISSUER_CERT: 'its certificate is by no authority in tls.ca',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is by no authority in tls.ca',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is by no authority in tls.ca',
  CERT_SIGNATURE_FAILURE: 'its certificate is by no authority in tls.ca',
  INVALID_PURPOSE: 'its certificate is not for clients',
};

const PROTOCOL_FAULTS: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS',
  ERR_SSL_HTTP_REQUEST: 'it speaks HTTP without TLS',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'it does not speak TLS 1.3',
};

/** Counts and logs clients that do not get in, with nothing but where and why. */
export class RefusedConnections {
  readonly #log: Logger;
  readonly #metrics: Pick<AgentMetrics, 'refusedConnections'>;
  readonly #seldom = new Seldom({ intervalMs: QUIET_MS, maxKeys: MAX_HOSTS });

  constructor(dependencies: { log: Logger; metrics: Pick<AgentMetrics, 'refusedConnections'> }) {
    this.#log = dependencies.log;
    this.#metrics = dependencies.metrics;
  }

  /** Looks at what a server, that need not listen yet, refuses. */
  watch(listener: TlsListener): void {
    // Asked once, a socket knows the address of its other end after that end has gone.
    listener.on('connection', (socket: Socket) => socket.remoteAddress);
    listener.on('tlsClientError', (error, socket) => {
      this.#report(refusalOf(error, socket), remoteOf(socket));
    });
  }

  /** Counts a connection that was one too many, see {@link ConnectionGate}. */
  noteCrowd(remote: Remote): void {
    const why = 'too many connections, and most of them from there';
    const { remoteAddress: host = 'unknown', remotePort: port = 0 } = remote;
    this.#report({ reason: 'crowd', why }, { host, port });
  }

  #report(refusal: Refusal | undefined, remote: { host: string; port: number }): void {
    if (refusal === undefined) return;
    const { reason, why } = refusal;
    this.#metrics.refusedConnections.inc({ reason });
    if (!this.#seldom.isDue(`${remote.host} ${why}`)) return;
    this.#log.warn({ remote, reason, why }, 'refused a connection of another node');
  }
}

/** @returns undefined where the other end just went away, as port probes do */
function refusalOf(error: NodeJS.ErrnoException, socket: TLSSocket): Refusal | undefined {
  const fault = socket.authorizationError as unknown;
  if (typeof fault === 'string') {
    const why = CERTIFICATE_FAULTS[fault] ?? `its certificate is not accepted: ${fault}`;
    return { reason: 'certificate', why };
  }
  const code = error.code ?? '';
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') {
    return { reason: 'no_certificate', why: 'it shows no certificate' };
  }
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') {
    return { reason: 'slow', why: 'it did not finish the TLS handshake in time' };
  }
  if (/_ALERT_.*(CERT|CA$)/.test(code)) {
    return { reason: 'own_certificate', why: `it does not accept our certificate: ${code}` };
  }
  if (!code.startsWith('ERR_SSL_')) return undefined;
  return { reason: 'protocol', why: PROTOCOL_FAULTS[code] ?? `TLS failed: ${code}` };
}

function remoteOf(socket: TLSSocket): { host: string; port: number } {
  const { _parent: raw = socket } = socket as unknown as { _parent?: Socket };
  return { host: raw.remoteAddress ?? 'unknown', port: raw.remotePort ?? 0 };
}
