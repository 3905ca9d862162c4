import type { ServerResponse } from 'node:http';

/** What is written at once where bytes come fast. Also all that waits for a client, in bytes. */
const FULL_BYTES = 192 * 1024;
/** The same for a client that takes its time: it gains nothing from more, and memory is for all. */
const FULL_BYTES_OF_SLOW = 64 * 1024;
/** A client that needs longer than this for what waits is slow, milliseconds. */
const SLOW_DRAIN_MS = 200;

/**
 * Gathers chunks of a body and hands them to the socket together: one call of the system for
 * several of them. What was gathered in one turn of the event loop goes out at its end, so that
 * nothing waits for bytes that have not come.
 */
export class WriteBatch {
  readonly #response: ServerResponse;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #fullBytes = FULL_BYTES;
  #turn: NodeJS.Immediate | undefined;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  /** Whether so much waits here and at the socket that no more should be added. */
  get isFull(): boolean {
    return this.#bytes + this.#response.writableLength >= this.#fullBytes;
  }

  /** Whether bytes wait at the socket, and its drain will tell when they have gone. */
  get mustDrain(): boolean {
    return this.#response.writableNeedDrain && this.#response.writableLength > 0;
  }

  /** The client has taken all that waited, within so many milliseconds. */
  noteDrain(tookMs: number): void {
    this.#fullBytes = tookMs > SLOW_DRAIN_MS ? FULL_BYTES_OF_SLOW : FULL_BYTES;
  }

  /** Takes a chunk; it goes out soon. */
  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#turn ??= setImmediate(() => this.flush());
  }

  /** Hands everything over. */
  flush(): void {
    const chunks = this.#chunks;
    this.drop();
    const { socket } = this.#response;
    socket?.cork();
    for (const chunk of chunks) this.#response.write(chunk);
    socket?.uncork();
  }

  /** Forgets what was not handed over. */
  drop(): void {
    clearImmediate(this.#turn);
    this.#turn = undefined;
    this.#chunks = [];
    this.#bytes = 0;
  }
}
