import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Whom to ask, and how. */
export interface RawTarget {
  readonly method: 'GET' | 'HEAD';
  readonly port: number;
  readonly accept: string;
}

interface Waiting {
  readonly path: string;
  readonly resolve: (elapsedMs: number) => void;
  readonly reject: (error: Error) => void;
}

const bufferBytes = 64 * 1024;
const headEnd = Buffer.from('\r\n\r\n');

/**
 * A kept connection that asks one question after the other and does next to nothing with the
 * answers, so that what is measured is the server.
 */
export class RawConnection {
  readonly #target: RawTarget;
  readonly #socket: Socket;
  #pending: Buffer = Buffer.alloc(0);
  #waiting: Waiting | undefined;
  #askedAtMs = 0;

  private constructor(target: RawTarget) {
    this.#target = target;
    this.#socket = connect({
      host: '127.0.0.1',
      port: target.port,
      noDelay: true,
      onread: {
        buffer: Buffer.allocUnsafe(bufferBytes),
        callback: (count, buffer) => this.#onBytes(buffer.subarray(0, count)),
      },
    });
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.once('close', () => this.#fail(new Error('the server has closed')));
  }

  /** @throws when nobody listens there */
  static async open(target: RawTarget): Promise<RawConnection> {
    const connection = new RawConnection(target);
    await once(connection.#socket, 'connect');
    return connection;
  }

  /**
   * Asks, and waits for the whole answer. One question at a time.
   *
   * @param path with the query
   * @returns milliseconds from the request's first byte to the answer's last
   * @throws on any answer that is not 200 with a Content-Length
   */
  async ask(path: string): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const { accept, method, port } = this.#target;
    const head = [`${method} ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, `Accept: ${accept}`];
    const request = Buffer.from(`${head.join('\r\n')}\r\n\r\n`);
    this.#waiting = { path, resolve, reject };
    this.#askedAtMs = performance.now();
    this.#socket.write(request);
    return promise;
  }

  close(): void {
    this.#socket.destroy();
  }

  #onBytes(bytes: Uint8Array): boolean {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    const end = this.#pending.indexOf(headEnd);
    if (end < 0) return true;
    const head = this.#pending.toString('latin1', 0, end);
    const length = /^content-length: (\d+)/im.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200 ') || length === undefined) {
      this.#fail(new Error(head));
      this.close();
      return false;
    }
    const bodyBytes = this.#target.method === 'HEAD' ? 0 : Number(length);
    if (this.#pending.length < end + headEnd.length + bodyBytes) return true;
    this.#pending = Buffer.alloc(0);
    this.#waiting?.resolve(performance.now() - this.#askedAtMs);
    this.#waiting = undefined;
    return true;
  }

  #fail(error: Error): void {
    this.#waiting?.reject(new Error(`Cannot get ${this.#waiting.path}: ${error.message}`));
    this.#waiting = undefined;
  }
}
