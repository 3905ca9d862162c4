import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { AnswerAlterer, type Alteration } from './alter-answer.ts';
import { HttpTap, type Exchange, type ResponsePiece } from './http-tap.ts';
import { freePort } from './ports.ts';
import type { TestScope } from './test-scope.ts';

const throttleSliceMs = 20;
const maxExchanges = 100_000;

/** Which requests a fault is for. All unless told. */
export type Match = (exchange: Exchange) => boolean;

/** What the proxy does to connections. */
export type FaultMode =
  /** Nothing. */
  | { readonly kind: 'pass' }
  /** Nobody listens; open connections are reset. */
  | { readonly kind: 'refuse' }
  /** Accepts and never reads. */
  | { readonly kind: 'blackhole' }
  /** Reads everything and never answers. */
  | { readonly kind: 'silent' }
  /** Ends the connection at that byte of the body, politely (fin) or not (rst). */
  | {
      readonly kind: 'cut';
      readonly afterBytes: number;
      readonly how: 'fin' | 'rst';
      readonly match?: Match;
    }
  /** Says nothing more from that byte of the body on, and keeps the connection open. */
  | { readonly kind: 'stall'; readonly afterBytes: number; readonly match?: Match }
  /** Lets that much pass in a second, on all connections together. */
  | { readonly kind: 'throttle'; readonly bytesPerSecond: number }
  /** One byte at a time, that many in a second, on each connection. */
  | {
      readonly kind: 'trickle';
      readonly bytesPerSecond: number;
      readonly match?: Match;
      /** Heads then pass as they are; everything trickles unless told. */
      readonly part?: 'body';
    }
  /** Answers by itself, without asking the target. The body is an error of the OCI kind. */
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly match?: Match;
    }
  /** Resets the connection instead of passing a request. */
  | { readonly kind: 'reset'; readonly match?: Match }
  /** Keeps the head of each answer back for a while; then all passes. */
  | { readonly kind: 'slowHead'; readonly delayMs: number; readonly match?: Match }
  /** Answers pass with something wrong in them. */
  | { readonly kind: 'alter'; readonly what: Alteration; readonly match?: Match }
  /** Bytes that follow a pause come late, like those from far away. */
  | { readonly kind: 'lag'; readonly delayMs: number };

/** What happens to the connection after a hook. */
export type AfterHook = 'fin' | 'rst' | 'pass';

interface ByteHook {
  readonly afterBytes: number;
  readonly after: AfterHook;
  readonly match: Match;
  readonly run: () => void | Promise<void>;
}

/**
 * A proxy of TCP connections that can be told to misbehave, at any time. It alters no byte, but it
 * reads along: faults and hooks count bytes of HTTP bodies, and `exchanges` has every request.
 * TLS passes without being understood: cut, stall and hooks then find no body.
 */
export class FaultProxy {
  readonly port: number;
  /** host:port, as image names write it. */
  readonly host: string;
  readonly url: string;
  /** Every request whose head has passed, in order; the oldest go when there are 100,000. */
  readonly exchanges: Exchange[] = [];
  readonly #targetPort: number;
  readonly #connections = new Set<ProxiedConnection>();
  readonly #hooks = new Set<ByteHook>();
  #server: Server | undefined;
  #mode: FaultMode = { kind: 'pass' };
  #connectionCount = 0;
  #paceFreeAt = 0;

  private constructor(port: number, targetPort: number) {
    this.port = port;
    this.host = `127.0.0.1:${port}`;
    this.url = `http://${this.host}`;
    this.#targetPort = targetPort;
  }

  /**
   * Starts a proxy that ends with the scope.
   *
   * @param options.targetPort loopback port that it passes connections to
   */
  static async start(
    scope: TestScope,
    options: { readonly targetPort: number; readonly port?: number },
  ): Promise<FaultProxy> {
    const proxy = new FaultProxy(options.port ?? (await freePort()), options.targetPort);
    scope.defer(() => proxy.#close());
    await proxy.#listen();
    return proxy;
  }

  /** Connections accepted so far. */
  get connectionCount(): number {
    return this.#connectionCount;
  }

  /** Connections open at the moment. */
  get openConnections(): number {
    return this.#connections.size;
  }

  get mode(): FaultMode {
    return this.#mode;
  }

  /** Misbehaves from now on, on open connections too. */
  async setMode(mode: FaultMode): Promise<void> {
    this.#mode = mode;
    if (mode.kind === 'refuse') await this.#close();
    else if (this.#server === undefined) await this.#listen();
    for (const connection of this.#connections) connection.wake();
  }

  /**
   * Gives its port up, so that something else can listen there. Open connections stay and do what
   * the mode says; the next mode other than refuse takes the port back.
   */
  leavePort(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** Resets every open connection. */
  resetConnections(): void {
    for (const connection of this.#connections) connection.reset();
  }

  /**
   * Does something once, when exactly that many body bytes of one matching answer have passed.
   *
   * @param options.after then cuts that connection (fin unless told): the kernel would still
   *   deliver what a killed program had sent, and no test could tell at which byte it died
   */
  killUpstreamAfterBytes(
    afterBytes: number,
    run: () => void | Promise<void>,
    options: { readonly match?: Match; readonly after?: AfterHook } = {},
  ): void {
    const { match = () => true, after = 'fin' } = options;
    this.#hooks.add({ afterBytes, run, match, after });
  }

  /** For connections: the next hook for a request, if there is one. */
  nextHook(exchange: Exchange): ByteHook | undefined {
    return [...this.#hooks]
      .filter((hook) => hook.match(exchange))
      .sort((a, b) => a.afterBytes - b.afterBytes)[0];
  }

  /** For connections: does what a hook says, unless another connection was first. */
  async runHook(hook: ByteHook): Promise<void> {
    if (this.#hooks.delete(hook)) await hook.run();
  }

  /** For connections: waits until that many bytes may pass at the rate of all connections. */
  async pace(bytes: number, bytesPerSecond: number): Promise<void> {
    const now = performance.now();
    const from = Math.max(now, this.#paceFreeAt);
    this.#paceFreeAt = from + (bytes * 1000) / bytesPerSecond;
    if (from - now > throttleSliceMs) await delay(from - now);
  }

  async #listen(): Promise<void> {
    const server = createServer((socket) => this.#accept(socket));
    this.#server = server;
    server.listen({ host: '127.0.0.1', port: this.port });
    await once(server, 'listening');
  }

  async #close(): Promise<void> {
    this.resetConnections();
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = once(server, 'close');
    server.close();
    await closed;
  }

  #accept(client: Socket): void {
    this.#connectionCount += 1;
    const connection = new ProxiedConnection(this, {
      client,
      targetPort: this.#targetPort,
      onExchange: (exchange) => {
        this.exchanges.push(exchange);
        if (this.exchanges.length > maxExchanges) this.exchanges.shift();
      },
    });
    this.#connections.add(connection);
    void connection.run().finally(() => this.#connections.delete(connection));
  }
}

/** Starts a proxy that ends with the scope. */
export async function startFaultProxy(
  scope: TestScope,
  options: { readonly targetPort: number; readonly port?: number },
): Promise<FaultProxy> {
  return FaultProxy.start(scope, options);
}

/** One accepted connection and, once needed, the one to the target. */
class ProxiedConnection {
  readonly #proxy: FaultProxy;
  readonly #client: Socket;
  readonly #tap: HttpTap;
  readonly #targetPort: number;
  readonly #alterer = new AnswerAlterer();
  #target: Socket | undefined;
  #woken = Promise.withResolvers<undefined>();
  #cutOff = false;
  /** Requests whose heads came with the bytes that are being passed. */
  #arrived: Exchange[] = [];
  #lastByteAt = Number.NEGATIVE_INFINITY;

  constructor(
    proxy: FaultProxy,
    options: {
      readonly client: Socket;
      readonly targetPort: number;
      readonly onExchange: (exchange: Exchange) => void;
    },
  ) {
    this.#proxy = proxy;
    this.#client = options.client;
    this.#tap = new HttpTap((exchange) => {
      this.#arrived.push(exchange);
      options.onExchange(exchange);
    });
    this.#targetPort = options.targetPort;
    this.#client.setNoDelay(true);
    this.#client.on('error', () => this.#client.destroy());
    this.#client.once('close', () => {
      this.#target?.destroy();
      this.wake();
    });
  }

  /** Ends when the connection is over. Never throws. */
  async run(): Promise<void> {
    try {
      await this.#holdWhile('blackhole');
      if (this.#client.destroyed) return;
      const target = connect({ host: '127.0.0.1', port: this.#targetPort });
      this.#target = target;
      // The loops below see it too; this is for the time when they have ended.
      target.on('error', () => target.destroy());
      await once(target, 'connect');
      target.setNoDelay(true);
      await Promise.all([this.#passRequests(target), this.#passResponses(target)]);
    } catch {
      // Whatever broke on one side is shown to the other side as a reset.
      this.reset();
    } finally {
      this.#target?.destroy();
    }
  }

  /** The mode has changed or the connection is over. */
  wake(): void {
    this.#woken.resolve(undefined);
    this.#woken = Promise.withResolvers();
  }

  reset(): void {
    this.#client.resetAndDestroy();
    this.#target?.destroy();
    this.wake();
  }

  async #holdWhile(kind: FaultMode['kind']): Promise<void> {
    while (this.#proxy.mode.kind === kind && !this.#client.destroyed) await this.#woken.promise;
  }

  async #passRequests(target: Socket): Promise<void> {
    for await (const chunk of this.#client as AsyncIterable<Buffer>) {
      await this.#holdWhile('blackhole');
      // What a silent upstream has read is never answered, also when it speaks again.
      // A close with unread input becomes a reset, so it is read after a polite end too.
      if (this.#proxy.mode.kind === 'silent' || this.#cutOff) continue;
      this.#arrived = [];
      this.#tap.request(chunk);
      if (await this.#answerItself(this.#arrived)) continue;
      await write(target, chunk);
    }
    target.end();
  }

  /** @returns whether the requests were answered here; they come one by one, without bodies */
  async #answerItself(requests: readonly Exchange[]): Promise<boolean> {
    const { mode } = this.#proxy;
    const [request] = requests;
    if ((mode.kind !== 'answer' && mode.kind !== 'reset') || request === undefined) return false;
    if (mode.match?.(request) === false) return false;
    this.#tap.forget(request);
    if (mode.kind === 'reset') {
      this.reset();
      return true;
    }
    request.status = mode.status;
    await write(this.#client, answerBytes(request, mode));
    return true;
  }

  async #passResponses(target: Socket): Promise<void> {
    for await (const chunk of target as AsyncIterable<Buffer>) {
      for (const piece of this.#tap.response(chunk)) await this.#passPiece(piece);
    }
    this.#cutOff = true;
    this.#client.end();
  }

  async #passPiece(piece: ResponsePiece): Promise<void> {
    let rest = await this.#changed(piece);
    while (rest.length > 0) {
      await this.#holdWhile('blackhole');
      await this.#holdWhile('silent');
      const allowed = await this.#allowedBytes({ ...piece, bytes: rest });
      if (this.#client.destroyed) throw new Error('Cannot go on: the connection is closed');
      const part = rest.subarray(0, allowed);
      rest = rest.subarray(allowed);
      if (piece.isBody && piece.exchange !== undefined) piece.exchange.bodyBytes += part.length;
      await write(this.#client, part);
      await this.#runDueHook(piece);
    }
  }

  /** The piece's bytes as the mode wants them, after the wait that it wants. */
  async #changed(piece: ResponsePiece): Promise<Buffer> {
    const { mode } = this.#proxy;
    const { exchange, isBody, bytes } = piece;
    if (mode.kind === 'lag') {
      const isLate = performance.now() - this.#lastByteAt > mode.delayMs;
      if (isLate) await delay(mode.delayMs);
      this.#lastByteAt = performance.now();
      return bytes;
    }
    if (mode.kind !== 'slowHead' && mode.kind !== 'alter') return bytes;
    if (mode.match !== undefined && (exchange === undefined || !mode.match(exchange))) return bytes;
    if (mode.kind === 'alter') {
      return this.#alterer.alter(piece, mode.what, exchange?.bodyBytes ?? 0);
    }
    if (!isBody) await delay(mode.delayMs);
    return bytes;
  }

  async #runDueHook({ exchange, isBody }: ResponsePiece): Promise<void> {
    if (exchange === undefined) return;
    const hook = this.#proxy.nextHook(exchange);
    const isDue = isBody || exchange.status !== 0;
    if (hook === undefined || !isDue || exchange.bodyBytes < hook.afterBytes) return;
    await this.#proxy.runHook(hook);
    if (hook.after !== 'pass') await this.#cut(hook.after);
  }

  /** @returns how many bytes of the piece may pass now; 0: ask again */
  async #allowedBytes(piece: ResponsePiece): Promise<number> {
    const { exchange, bytes } = piece;
    let allowed = bytes.length;
    if (exchange !== undefined && piece.isBody) {
      const hook = this.#proxy.nextHook(exchange);
      const until = hook?.afterBytes ?? Number.POSITIVE_INFINITY;
      allowed = Math.max(0, Math.min(allowed, until - exchange.bodyBytes));
    }
    return this.#applyMode(piece, allowed);
  }

  async #applyMode({ exchange, isBody }: ResponsePiece, allowed: number): Promise<number> {
    const mode = this.#proxy.mode;
    const match = 'match' in mode ? mode.match : undefined;
    const matches = match === undefined || (exchange !== undefined && match(exchange));
    switch (mode.kind) {
      case 'cut':
      case 'stall': {
        if (!matches) return allowed;
        const left = mode.afterBytes - (exchange?.bodyBytes ?? 0);
        if (left > 0) return isBody ? Math.min(allowed, left) : allowed;
        // The head passes, so that the fault is in the body.
        if (!isBody && exchange?.bodyBytes === 0) return allowed;
        if (mode.kind === 'stall') await this.#woken.promise;
        else await this.#cut(mode.how);
        return 0;
      }
      case 'throttle': {
        const slice = Math.ceil((mode.bytesPerSecond * throttleSliceMs) / 1000);
        const part = Math.min(allowed, slice);
        await this.#proxy.pace(part, mode.bytesPerSecond);
        return part;
      }
      case 'trickle':
        if (!matches || (mode.part === 'body' && !isBody)) return allowed;
        await delay(1000 / mode.bytesPerSecond);
        return 1;
      case 'pass':
      case 'refuse':
      case 'blackhole':
      case 'silent':
      case 'answer':
      case 'reset':
      case 'slowHead':
      case 'alter':
      case 'lag':
        return allowed;
    }
  }

  async #cut(how: 'fin' | 'rst'): Promise<void> {
    if (how === 'rst') {
      this.reset();
      return;
    }
    this.#cutOff = true;
    this.#target?.destroy();
    const closed = once(this.#client, 'close');
    this.#client.end();
    await closed;
  }
}

function answerBytes(
  request: Exchange,
  answer: { readonly status: number; readonly headers?: Readonly<Record<string, string>> },
): Buffer {
  const body = JSON.stringify({ errors: [{ code: 'UNAVAILABLE', message: 'made by a test' }] });
  const headers = {
    'content-type': 'application/json',
    'content-length': String(body.length),
    ...answer.headers,
  };
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const content = request.method === 'HEAD' ? '' : body;
  return Buffer.from(`HTTP/1.1 ${answer.status} Fault\r\n${head.join('')}\r\n${content}`);
}

async function write(socket: Socket, bytes: Buffer): Promise<void> {
  if (bytes.length === 0) return;
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  socket.write(bytes, (error) => {
    if (error) reject(error);
    else resolve(undefined);
  });
  return promise;
}
