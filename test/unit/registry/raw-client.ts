import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A client that speaks HTTP/1.1 by hand, so that it sees how a connection ends. */
export class RawClient {
  readonly socket: Socket;
  /** "open", then how the other side ended it. */
  end: 'open' | 'fin' | 'rst' = 'open';
  #received = Buffer.alloc(0);
  #wake = Promise.withResolvers<undefined>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#signal();
    });
    socket.on('end', () => {
      if (this.end === 'open') this.end = 'fin';
      this.#signal();
    });
    socket.on('error', () => {
      this.end = 'rst';
      this.#signal();
    });
    socket.on('close', () => this.#signal());
  }

  static async open(port: number): Promise<RawClient> {
    const socket = connect({ host: '127.0.0.1', port });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  /** Everything that has come so far. */
  get received(): Buffer {
    return this.#received;
  }

  get text(): string {
    return this.#received.toString('latin1');
  }

  send(text: string): void {
    this.socket.write(text);
  }

  get(path: string, headers = ''): void {
    this.send(`GET ${path} HTTP/1.1\r\nHost: mirror\r\n${headers}\r\n`);
  }

  /** Waits until what has come so far is what the test waits for. */
  async until(holds: (client: this) => boolean): Promise<void> {
    while (!holds(this)) {
      if (this.socket.destroyed && !holds(this)) {
        throw new Error(`Cannot go on: the connection is closed after ${this.text.slice(0, 500)}`);
      }
      await this.#wake.promise;
    }
  }

  /** Waits until the connection is over. */
  async untilEnded(): Promise<void> {
    await this.until(({ end }) => end !== 'open');
  }

  /** Waits for one whole answer with a Content-Length and takes it off what was received. */
  async answer(options: { readonly isHead?: boolean } = {}): Promise<RawAnswer> {
    const bodyBytes = (head: string): number =>
      options.isHead === true ? 0 : Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
    await this.until(({ text, received }) => {
      const end = text.indexOf('\r\n\r\n');
      return end !== -1 && received.length >= end + 4 + bodyBytes(text.slice(0, end));
    });
    const end = this.text.indexOf('\r\n\r\n');
    const head = this.text.slice(0, end);
    const rest = this.#received.subarray(end + 4);
    const length = bodyBytes(head);
    this.#received = rest.subarray(length);
    const [statusLine = '', ...lines] = head.split('\r\n');
    const headers = Object.fromEntries(
      lines.map((line) => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    return { status: Number(statusLine.split(' ')[1]), headers, body: rest.subarray(0, length) };
  }

  close(): void {
    this.socket.destroy();
  }

  #signal(): void {
    this.#wake.resolve(undefined);
    this.#wake = Promise.withResolvers();
  }
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}
