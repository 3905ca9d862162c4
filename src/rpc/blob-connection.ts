import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { splitAddress } from './address.ts';
import { BLOB_PROTOCOL, takeBlobAnswer } from './blob-protocol.ts';
import { checkAgentIdentity, type ClientIdentity } from './client-identity.ts';
import type { BlobAnswer } from './gen/salvor/agent/v1/agent_pb.ts';
import { HANDSHAKE_MS, roleName } from './identity.ts';

/** What is received into one buffer, and handed on together where bytes come fast. */
const PIECE_BYTES = 128 * 1024;
/** What waits for whoever reads it, at least, before no more is received. */
const READ_AHEAD_BYTES = 128 * 1024;
/** TLS decrypts no more at a time: RFC 8446, 5.1. */
const RECORD_BYTES = 16 * 1024;
/** Without a byte for so long the other end is taken for dead, milliseconds; unless told. */
const SILENCE_MS = 15_000;

/**
 * One TLS connection to an agent that sends blobs. Bytes are received straight into large buffers:
 * as a stream of Node they would come in 16 KiB at a time, which costs more than hashing them.
 */
export class BlobConnection {
  readonly #socket: TLSSocket;
  readonly #opened: Promise<string>;
  #piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  /** Of what is in the piece and was not handed on. */
  #start = 0;
  #end = 0;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #isPaused = false;
  #hasEnded = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  #waitsSinceMs = 0;
  readonly #silenceMs: number;
  readonly #watch: NodeJS.Timeout;
  #turn: NodeJS.Immediate | undefined;

  /**
   * Dials an agent.
   *
   * @param address "host:port"
   * @param limits.silenceMs 15 s where left out
   * @throws when this node's certificate has ended
   */
  constructor(
    address: string,
    identity: ClientIdentity,
    limits: { readonly silenceMs?: number } = {},
  ) {
    identity.requireCurrent();
    this.#silenceMs = limits.silenceMs ?? SILENCE_MS;
    const onread = {
      buffer: () => this.#piece.subarray(this.#end),
      callback: (bytes: number) => this.#receive(bytes),
    };
    const options: ConnectionOptions & { onread: typeof onread } = {
      ...splitAddress(address),
      secureContext: identity.context,
      // Nodes are dialled by address, which must not stand in the TLS handshake: RFC 6066, 3.
      servername: roleName('agent'),
      checkServerIdentity: checkAgentIdentity,
      ALPNProtocols: [BLOB_PROTOCOL, 'h2'],
      onread,
    };
    this.#socket = connect(options);
    this.#socket.setNoDelay(true);
    this.#watch = setInterval(() => this.#endIfSilent(), this.#silenceMs / 5);
    this.#opened = this.#open(identity);
    // Whoever waits for it learns of it, and nobody need.
    this.#opened.catch(() => undefined);
  }

  /** Whether it is of no use any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * @returns the protocol that the other end chose
   * @throws when there is no connection
   */
  protocol(): Promise<string> {
    return this.#opened;
  }

  /** Calls back when it has ended, whoever ended it. */
  onceEnded(listener: () => void): void {
    this.#socket.once('close', listener);
  }

  /** Sends bytes: few, since nothing waits for them to go. */
  send(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /**
   * Takes an answer from what comes.
   *
   * @returns undefined when the connection ends before
   * @throws when it is no answer, or the connection breaks
   */
  async answer(): Promise<BlobAnswer | undefined> {
    let bytes: Buffer = Buffer.alloc(0);
    for (;;) {
      const more = await this.next();
      if (more === undefined) return undefined;
      bytes = Buffer.concat([bytes, more]);
      const taken = takeBlobAnswer(bytes);
      if (taken === undefined) continue;
      if (taken.rest.length > 0) {
        this.#waiting.unshift(taken.rest);
        this.#waitingBytes += taken.rest.length;
      }
      return taken.message;
    }
  }

  /**
   * The next bytes, as many as there are.
   *
   * @returns undefined when the other end has closed the connection
   * @throws when it breaks, or no byte comes for 15 s
   */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      if (this.#waiting.length === 0) this.#seal();
      const bytes = this.#waiting.shift();
      if (bytes !== undefined) {
        this.#waitingBytes -= bytes.length;
        this.#goOn();
        return bytes;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#hasEnded) return undefined;
      await this.#wait();
    }
  }

  /** Ends it at once. */
  destroy(): void {
    this.#hasEnded = true;
    this.#waiting = [];
    this.#socket.destroy();
    this.#wake?.();
  }

  async #open(identity: ClientIdentity): Promise<string> {
    const socket = this.#socket;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const late = setTimeout(() => {
      socket.destroy(new Error(`no TLS within ${HANDSHAKE_MS} ms`));
    }, HANDSHAKE_MS);
    socket.once('secureConnect', () => {
      clearTimeout(late);
      resolve(socket.alpnProtocol === false ? '' : (socket.alpnProtocol ?? ''));
      identity.watchStart(socket, socket);
    });
    socket.on('error', (error) => {
      this.#failure ??= error;
      reject(error);
    });
    socket.once('end', () => this.#finish());
    socket.once('close', () => {
      clearTimeout(late);
      clearInterval(this.#watch);
      reject(new Error('the connection was closed'));
      this.#finish();
    });
    return promise;
  }

  #finish(): void {
    this.#hasEnded = true;
    this.#wake?.();
  }

  /** @returns whether more may come */
  #receive(bytes: number): boolean {
    this.#end += bytes;
    if (this.#piece.length - this.#end < RECORD_BYTES) {
      this.#seal();
      this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
      this.#start = this.#end = 0;
      this.#wake?.();
    } else if (this.#wake !== undefined) {
      // What else has come in this turn of the event loop goes with it.
      this.#turn ??= setImmediate(() => {
        this.#turn = undefined;
        this.#wake?.();
      });
    }
    this.#isPaused = this.#waitingBytes >= READ_AHEAD_BYTES;
    return !this.#isPaused;
  }

  #seal(): void {
    if (this.#start === this.#end) return;
    const bytes = this.#piece.subarray(this.#start, this.#end);
    this.#start = this.#end;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
  }

  #goOn(): void {
    if (!this.#isPaused || this.#waitingBytes >= READ_AHEAD_BYTES) return;
    this.#isPaused = false;
    this.#socket.resume();
  }

  async #wait(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#wake = () => resolve(undefined);
    this.#waitsSinceMs = performance.now();
    await promise;
    this.#wake = undefined;
  }

  // A timer for each wait would cost more than the wait.
  #endIfSilent(): void {
    if (this.#wake === undefined || performance.now() - this.#waitsSinceMs < this.#silenceMs)
      return;
    this.#failure ??= new Error(`not a byte for ${this.#silenceMs} ms`);
    this.destroy();
  }
}
