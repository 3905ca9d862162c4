import { once } from 'node:events';
import { createServer, type Server } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { PeerCertificate } from 'node:tls';
import { waitForClient } from '../../http/client-wait.ts';
import { SOURCE_HEADER } from '../../http/salvor-headers.ts';
import { ServerDrain } from '../../http/server-drain.ts';
import { UnreadableRequests } from '../../http/unreadable-requests.ts';
import type { Digest } from '../../oci/digest.ts';
import { parseV2Url } from '../../oci/path.ts';
import { rolesOf, type Role } from '../../rpc/identity.ts';
import type { ServerIdentity } from '../../rpc/server-identity.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { ConnectionGate } from '../connection-gate.ts';
import type { RefusedConnections } from '../refused-connections.ts';
import { StoreUnavailableError } from '../store.ts';
import { sendBlobBody, type BodyEnd } from './blob-body.ts';
import { errorAnswer, type BootstrapAnswer, type BootstrapContent } from './bootstrap-content.ts';
import type { BootstrapMetrics } from './bootstrap-metrics.ts';

export interface BootstrapServerOptions {
  /** Of this node, for the header that says who served it. */
  readonly node: string;
  /** How many requests are answered at a time; more get 503. */
  readonly maxRequests: number;
  /** Connections that have not shown a certificate yet. */
  readonly maxHandshakes: number;
  /** How long a client may take nothing, milliseconds. */
  readonly clientStallMs: number;
  /** Bytes of a blob that are read at a time; two such buffers are held for each. */
  readonly chunkBytes: number;
}

/** Who may ask. Agents and registries have a protocol of their own. */
const ALLOWED_ROLE: Role = 'bootstrap';
/** Requests that are not all there after this long are let go, milliseconds. */
const REQUEST_TIMEOUT_MS = 15_000;
/** Idle connections are kept longer than containerd keeps them (30 s), milliseconds. */
const KEEP_ALIVE_MS = 60_000;
const MAX_HEADER_BYTES = 16 * 1024;
const MAX_CONNECTIONS_PER_REQUEST = 8;
const RETRY_AFTER_S = '1';
const MAX_LOGGED_URL_CHARS = 512;

/** What the certificate of a client says, read once for each connection. */
interface Client {
  readonly roles: ReadonlySet<Role>;
  readonly notAfterMs: number;
  readonly fingerprint: string;
}

/** How an answer went out. */
interface Sent {
  readonly end: BodyEnd;
  readonly bytes: number;
  readonly error?: unknown;
}

/**
 * The OCI Distribution API over mutual TLS, for reading, for containerd of nodes that Salvor has
 * not come to yet.
 */
export class BootstrapServer {
  readonly #options: BootstrapServerOptions;
  readonly #content: Pick<BootstrapContent, 'answer'>;
  readonly #onWrongBytes: (digest: Digest) => void;
  readonly #identity: ServerIdentity;
  readonly #metrics: BootstrapMetrics;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #gate: ConnectionGate;
  readonly #server: Server;
  readonly #drain: ServerDrain;
  readonly #clients = new WeakMap<Socket, Client>();
  readonly #unreadable: UnreadableRequests;
  #running = 0;

  constructor(
    options: BootstrapServerOptions,
    dependencies: {
      content: Pick<BootstrapContent, 'answer'>;
      /** Told of blobs whose bytes turned out not to be those of their digest. */
      onWrongBytes: (digest: Digest) => void;
      identity: ServerIdentity;
      refused: RefusedConnections;
      metrics: BootstrapMetrics;
      clock: Clock;
      log: Logger;
    },
  ) {
    this.#options = options;
    this.#content = dependencies.content;
    this.#onWrongBytes = dependencies.onWrongBytes;
    this.#identity = dependencies.identity;
    this.#metrics = dependencies.metrics;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#unreadable = new UnreadableRequests({
      onAnswer: () => this.#metrics.requests.inc({ result: 'unreadable' }),
    });
    const { maxHandshakes, maxRequests } = options;
    const maxConnections = maxRequests * MAX_CONNECTIONS_PER_REQUEST;
    this.#gate = new ConnectionGate(
      { maxConnections, maxHandshakes },
      { onCrowd: (remote) => dependencies.refused.noteCrowd(remote) },
    );
    this.#server = this.#create(dependencies.refused);
    this.#drain = new ServerDrain(this.#server);
  }

  /**
   * Starts to listen.
   *
   * @param address host without brackets; port 0 takes a free one
   * @returns the port
   * @throws when the address cannot be taken
   */
  async listen(address: { readonly host: string; readonly port: number }): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      const onError = (error: Error): void => {
        const where = `${address.host}:${address.port}`;
        reject(new Error(`Cannot listen on ${where}: ${error.message}`, { cause: error }));
      };
      this.#server.once('error', onError);
      this.#server.listen(address, () => {
        this.#server.off('error', onError);
        resolve();
      });
    });
    return (this.#server.address() as AddressInfo).port;
  }

  /** Takes no new requests and lets running ones end; what still runs at the signal is cut. */
  close(options: { readonly signal: AbortSignal }): Promise<void> {
    const stop = async (): Promise<void> => {
      const closed = once(this.#server, 'close');
      this.#server.close();
      this.#gate.endHandshakes();
      await closed;
    };
    return this.#drain.run(stop, options);
  }

  #create(refused: RefusedConnections): Server {
    const server = createServer({
      ...this.#identity.options(),
      maxHeaderSize: MAX_HEADER_BYTES,
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: REQUEST_TIMEOUT_MS / 5,
      keepAliveTimeout: KEEP_ALIVE_MS,
    });
    // Node would hand failures of TLS on to "clientError", as if they were requests.
    server.removeAllListeners('tlsClientError');
    server.on('tlsClientError', (_error, socket) => socket.destroy());
    refused.watch(server);
    this.#gate.watch(server, { isSecure: true });
    server.on('request', (request, response) => void this.#handle(request, response));
    server.on('clientError', this.#unreadable.refuse);
    server.on('connect', (_request, socket) => this.#unreadable.end(socket, badMethodAnswer()));
    this.#identity.keepUpToDate(server);
    return server;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const startMs = performance.now();
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    response.on('error', () => gone.abort());
    this.#unreadable.watch(response);
    // Nothing that is pushed here is ever read.
    request.resume();
    const client = this.#clientOf(request.socket);
    const isBusy = this.#running >= this.#options.maxRequests;
    this.#running += 1;
    try {
      const answer = isBusy ? busyAnswer() : await this.#decide(request, client, gone.signal);
      const sent = await this.#send(request, response, { answer, signal: gone.signal });
      const result = sent.end === 'complete' ? answer.result : sent.end;
      this.#metrics.requests.inc({ result });
      if (answer.status < 300) this.#metrics.bytes.inc(sent.bytes);
      this.#log[sent.end === 'wrong_bytes' ? 'error' : 'info'](
        {
          method: request.method,
          url: (request.url ?? '').slice(0, MAX_LOGGED_URL_CHARS),
          remote: request.socket.remoteAddress,
          certificate: client.fingerprint,
          status: answer.status,
          result,
          bytes: sent.bytes,
          totalMs: Math.round(performance.now() - startMs),
          ...(sent.error === undefined ? {} : { err: sent.error }),
        },
        'bootstrap request',
      );
    } catch (error) {
      // A bug: whatever goes wrong with the store or the client is an answer.
      this.#metrics.requests.inc({ result: 'failed' });
      this.#log.error({ err: error, url: request.url }, 'bootstrap request failed');
      response.destroy();
    } finally {
      this.#running -= 1;
    }
  }

  async #decide(
    request: IncomingMessage,
    client: Client,
    signal: AbortSignal,
  ): Promise<BootstrapAnswer> {
    const refusal = this.#refusalOf(client);
    if (refusal !== undefined) return refusal;
    const parsed = parseV2Url(request.url ?? '');
    if (!parsed.ok) {
      const { status, code, message } = parsed;
      return errorAnswer(status, { code, message }, 'bad_request');
    }
    const { method } = request;
    if (method !== 'GET' && method !== 'HEAD') return badMethodAnswer();
    const { range } = request.headers;
    const { value: asked } = parsed;
    try {
      const answer = await this.#content.answer({
        asked,
        isHead: method === 'HEAD',
        range,
        signal,
      });
      if (asked.ns === undefined) return answer;
      return { ...answer, headers: { ...answer.headers, 'oci-namespace': asked.ns } };
    } catch (error) {
      if (signal.aborted) return unavailableAnswer('The client has gone');
      const isKnown = error instanceof StoreUnavailableError;
      this.#log.warn({ err: error, url: request.url }, 'cannot read for a bootstrap request');
      return unavailableAnswer(
        isKnown ? 'The content store of this node cannot be asked' : 'It cannot be read now',
      );
    }
  }

  #refusalOf({ notAfterMs, roles }: Client): BootstrapAnswer | undefined {
    // TLS has looked at it when the connection was made, which may be long ago.
    if (notAfterMs <= this.#clock.now()) {
      const message = 'The certificate of this client has ended';
      return errorAnswer(403, { code: 'DENIED', message }, 'expired', { connection: 'close' });
    }
    if (roles.has(ALLOWED_ROLE)) return undefined;
    const named = [...roles].join(' and ') || 'none';
    const message = `This is for the role ${ALLOWED_ROLE}, and the certificate names ${named}`;
    return errorAnswer(403, { code: 'DENIED', message }, 'wrong_role');
  }

  #clientOf(socket: Socket): Client {
    const known = this.#clients.get(socket);
    if (known !== undefined) return known;
    // null once the connection is gone.
    const tls = socket as unknown as { readonly getPeerCertificate: () => PeerCertificate | null };
    const certificate = tls.getPeerCertificate();
    const client = {
      roles: rolesOf(certificate ?? undefined),
      notAfterMs: Date.parse(certificate?.valid_to ?? ''),
      fingerprint: certificate?.fingerprint256 ?? '',
    };
    this.#clients.set(socket, client);
    return client;
  }

  async #send(
    request: IncomingMessage,
    response: ServerResponse,
    { answer, signal }: { readonly answer: BootstrapAnswer; readonly signal: AbortSignal },
  ): Promise<Sent> {
    const { body } = answer;
    const { chunkBytes, clientStallMs, node } = this.#options;
    try {
      if (signal.aborted) return { end: 'client_gone', bytes: 0 };
      response.writeHead(answer.status, {
        ...answer.headers,
        'docker-distribution-api-version': 'registry/2.0',
        ...(answer.status < 300 ? { [SOURCE_HEADER]: `node/${node}` } : {}),
        // What the client still sends would be read as its next request.
        ...(hasBody(request) || !this.#server.listening ? { connection: 'close' } : {}),
      });
      if (body === undefined || Buffer.isBuffer(body) || request.method === 'HEAD') {
        const bytes =
          request.method === 'HEAD' || body === undefined ? undefined : (body as Buffer);
        response.end(bytes);
        const taken = await waitForClient(response, 'finish', { clientStallMs, signal });
        return { end: taken === 'done' ? 'complete' : taken, bytes: bytes?.length ?? 0 };
      }
      const sent = await sendBlobBody(response, body, { chunkBytes, clientStallMs, signal });
      if (sent.end === 'wrong_bytes') this.#onWrongBytes(body.blob.digest);
      return sent;
    } finally {
      if (body !== undefined && !Buffer.isBuffer(body)) await body.blob.close();
    }
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return Number(headers['content-length'] ?? 0) > 0 || 'transfer-encoding' in headers;
}

function busyAnswer(): BootstrapAnswer {
  const message = 'Too many requests are being answered; try again, or ask another node';
  const headers = { 'retry-after': RETRY_AFTER_S };
  return errorAnswer(503, { code: 'UNAVAILABLE', message }, 'busy', headers);
}

function unavailableAnswer(message: string): BootstrapAnswer {
  const headers = { 'retry-after': RETRY_AFTER_S };
  return errorAnswer(503, { code: 'UNAVAILABLE', message }, 'store', headers);
}

function badMethodAnswer(): BootstrapAnswer {
  const message = 'This listener can only be read';
  const headers = { allow: 'GET, HEAD' };
  return errorAnswer(405, { code: 'UNSUPPORTED', message }, 'bad_method', headers);
}
