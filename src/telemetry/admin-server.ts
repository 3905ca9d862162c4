import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

import { ConnectionPlaces } from '../http/connection-places.ts';
import { createServer } from '../http/node-http.ts';
import type { Logger } from './logger.ts';

/**
 * Looks whether one thing that this process needs can be used.
 *
 * @returns true when it can; false, or a short reason, when not
 */
export type ReadyCheck = (options: { readonly signal: AbortSignal }) => Promise<boolean | string>;

export interface AdminServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** How long all checks of /readyz together may take; 2 s where left out. */
  readonly checkTimeoutMs?: number;
}

export interface AdminServerDependencies {
  readonly metrics: { readonly contentType: string; metrics(): Promise<string> };
  /** By name; an empty object is always ready. */
  readonly checks: Readonly<Record<string, ReadyCheck>>;
  /** Further pages by path, each giving what is sent as JSON; for this machine alone. */
  readonly pages?: Readonly<Record<string, AdminPage>>;
  readonly log: Pick<Logger, 'warn'>;
}

/** Makes the content of a page from the query that was asked with. */
export type AdminPage = (query: URLSearchParams) => unknown;

interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

const plainText = 'text/plain; charset=utf-8';
const limits = {
  maxConnections: 64,
  /** Accepted in one turn of the event loop, and not closed before the next. */
  burst: 512,
  maxHeaderBytes: 8 * 1024,
  headersTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  keepAliveTimeoutMs: 10_000,
};

/**
 * Answers `/metrics` (Prometheus text), `/healthz` (200 as long as the process turns) and
 * `/readyz` (200, or 503 when a check fails, with every check's result as JSON). Bounded on its
 * own, so that nobody who looks can disturb who pulls.
 */
export class AdminServer {
  readonly #options: AdminServerOptions;
  readonly #dependencies: AdminServerDependencies;
  readonly #server: Server;

  constructor(options: AdminServerOptions, dependencies: AdminServerDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#server = createServer(
      {
        maxHeaderSize: limits.maxHeaderBytes,
        headersTimeout: limits.headersTimeoutMs,
        requestTimeout: limits.requestTimeoutMs,
        keepAliveTimeout: limits.keepAliveTimeoutMs,
        connectionsCheckingInterval: limits.headersTimeoutMs,
      },
      (request, response) => void this.#handle(request, response),
    );
    // A probe must get in however many connections somebody else holds.
    const places = new ConnectionPlaces({ max: limits.maxConnections, gives: 'oldest' });
    this.#server.on('connection', (socket) => {
      socket.once('close', () => places.leave(socket));
      places.take(socket)?.destroy();
    });
    this.#server.maxConnections = limits.maxConnections + limits.burst;
  }

  /**
   * Starts to listen.
   *
   * @returns the port, which is chosen by the system where the option was 0
   * @throws when the address cannot be listened on
   */
  async start(): Promise<number> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    return (this.#server.address() as AddressInfo).port;
  }

  /** Stops listening and ends every connection. Harmless when it was not started. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume();
    const answer = await this.#answer(request).catch((error: unknown): Answer => {
      this.#dependencies.log.warn({ err: error, path: request.url }, 'Cannot answer on admin port');
      return { status: 500, contentType: plainText, body: 'internal error\n' };
    });
    const body = Buffer.from(answer.body);
    response.writeHead(answer.status, {
      'content-type': answer.contentType,
      'content-length': body.byteLength,
      'cache-control': 'no-store',
      ...(answer.status === 405 ? { allow: 'GET, HEAD' } : {}),
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return { status: 405, contentType: plainText, body: 'method not allowed\n' };
    }
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    switch (path) {
      case '/metrics': {
        const { metrics } = this.#dependencies;
        return { status: 200, contentType: metrics.contentType, body: await metrics.metrics() };
      }
      case '/healthz':
        return { status: 200, contentType: plainText, body: 'ok\n' };
      case '/readyz':
        return await this.#readiness();
      default:
        // They tell what is pulled here; a port that is open to Prometheus is open to others.
        if (!isFromHere(request.socket)) {
          return { status: 403, contentType: plainText, body: 'only from this machine\n' };
        }
        return await this.#page(path, request.url ?? '');
    }
  }

  async #page(path: string, url: string): Promise<Answer> {
    const page = this.#dependencies.pages?.[path];
    if (page === undefined) return { status: 404, contentType: plainText, body: 'not found\n' };
    const { searchParams } = new URL(url, 'http://localhost');
    const content = await page(searchParams);
    return {
      status: 200,
      contentType: 'application/json',
      body: `${JSON.stringify(content)}\n`,
    };
  }

  async #readiness(): Promise<Answer> {
    const signal = AbortSignal.timeout(this.#options.checkTimeoutMs ?? 2000);
    const results = await Promise.all(
      Object.entries(this.#dependencies.checks).map(
        async ([name, check]) => [name, await runCheck(check, signal)] as const,
      ),
    );
    const ready = results.every(([, result]) => result === 'ok');
    return {
      status: ready ? 200 : 503,
      contentType: 'application/json',
      body: `${JSON.stringify({ ready, checks: Object.fromEntries(results) })}\n`,
    };
  }
}

/** Whether both ends of a connection are on this machine. */
function isFromHere({ localAddress, remoteAddress }: Socket): boolean {
  return remoteAddress !== undefined && remoteAddress === localAddress;
}

async function runCheck(check: ReadyCheck, signal: AbortSignal): Promise<string> {
  const expired = new Promise<string>((resolve) => {
    signal.addEventListener('abort', () => resolve('no answer in time'), { once: true });
  });
  const result = check({ signal }).then(
    (value) => (value === true ? 'ok' : value === false ? 'not ready' : value),
    (error: unknown) => (error instanceof Error ? error.message : 'failed'),
  );
  return await Promise.race([result, expired]);
}
