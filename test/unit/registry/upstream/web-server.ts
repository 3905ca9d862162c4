import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Tells connections apart. */
  readonly remotePort: number | undefined;
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A real HTTP server of a test: remembers what it was asked, and can be told what to answer. */
export class WebServer {
  handler: Handler;
  readonly requests: SeenRequest[] = [];
  /** Connections accepted so far. */
  connections = 0;
  readonly #server: Server;
  readonly #scheme: string;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, scheme: string, handler: Handler) {
    this.#server = server;
    this.#scheme = scheme;
    this.handler = handler;
  }

  static async start(
    handler: Handler,
    tls?: { readonly cert: string; readonly key: string },
  ): Promise<WebServer> {
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    const web = new WebServer(server, tls === undefined ? 'http' : 'https', handler);
    server.on('connection', (socket: Socket) => {
      web.connections += 1;
      web.#sockets.add(socket);
      socket.on('close', () => web.#sockets.delete(socket));
    });
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      web.requests.push({
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.headers,
        remotePort: request.socket.remotePort,
      });
      web.handler(request, response);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return web;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** For tests that speak to a proxy. */
  get raw(): Server {
    return this.#server;
  }

  get openConnections(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }
}
