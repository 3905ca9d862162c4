import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';

/**
 * What a proxy does with what it is asked for: leads there, answers a status of its own, says
 * nothing, or breaks off.
 */
export type ProxyMode = 'pass' | 'silent' | 'reset' | { readonly status: number };

/** A proxy as companies have them: CONNECT, and whole requests for plain http. */
export class ConnectProxy {
  mode: ProxyMode = 'pass';
  /** "host:port" of every CONNECT. */
  readonly tunnels: string[] = [];
  /** URLs of whole requests. */
  readonly forwarded: string[] = [];
  readonly #seen: string[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer();
  readonly #addresses: Readonly<Record<string, number>>;

  private constructor(addresses: Readonly<Record<string, number>>) {
    this.#addresses = addresses;
    this.#server.on('connection', (socket: Socket) => this.#track(socket));
    this.#server.on('connect', (message: IncomingMessage, socket: Socket) =>
      this.#tunnel(message, socket),
    );
    this.#server.on('request', (message: IncomingMessage, response: ServerResponse) =>
      this.#forward(message, response),
    );
  }

  /**
   * Starts a proxy on a loopback port.
   *
   * @param options.addresses ports on this machine for "host:port" as the proxy's clients name them
   */
  static async start(
    options: { readonly addresses?: Readonly<Record<string, number>> } = {},
  ): Promise<ConnectProxy> {
    const proxy = new ConnectProxy(options.addresses ?? {});
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `http://${this.host}`;
  }

  /** Everything that could be read on its way through, headers included. */
  get seenText(): string {
    return this.#seen.join('\n');
  }

  /** Connections that are open, to its clients and to where it leads. */
  get openConnections(): number {
    return this.#sockets.size;
  }

  /** Breaks off what is open. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The same, and refuses connections from now on. */
  async close(): Promise<void> {
    this.cut();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #tunnel(message: IncomingMessage, socket: Socket): void {
    const place = message.url ?? '';
    this.tunnels.push(place);
    this.#seen.push(JSON.stringify(message.headers));
    if (this.mode === 'silent') {
      // Else nobody would notice that the client has gone.
      socket.resume().on('end', () => socket.destroy());
      return;
    }
    if (this.mode === 'reset') socket.resetAndDestroy();
    else if (this.mode !== 'pass') {
      socket.end(`HTTP/1.1 ${this.mode.status} Proxy\r\nContent-Length: 2\r\n\r\nno`);
    } else {
      const { host, port } = this.#placeOf(place);
      const target = this.#track(connect({ host, port }));
      target.on('connect', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.on('data', (chunk: Buffer) => this.#seen.push(chunk.toString('latin1')));
        socket.pipe(target).pipe(socket);
      });
    }
  }

  #forward(message: IncomingMessage, response: ServerResponse): void {
    const url = new URL(message.url ?? '');
    this.forwarded.push(url.href);
    this.#seen.push(JSON.stringify(message.headers));
    if (this.mode === 'silent') return;
    if (this.mode === 'reset') message.socket.resetAndDestroy();
    else if (this.mode !== 'pass') response.writeHead(this.mode.status).end('no');
    else {
      const { host, port } = this.#placeOf(`${url.hostname}:${url.port || '80'}`);
      const { method, headers } = message;
      const asked = request({ host, port, method, headers, path: url.pathname + url.search });
      asked.on('response', (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      asked.on('error', () => response.destroy());
      asked.end();
    }
  }

  #placeOf(place: string): { host: string; port: number } {
    const known = this.#addresses[place];
    if (known !== undefined) return { host: '127.0.0.1', port: known };
    const colon = place.lastIndexOf(':');
    return { host: place.slice(0, colon), port: Number(place.slice(colon + 1)) };
  }

  #track(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    return socket.on('error', () => socket.destroy());
  }
}
