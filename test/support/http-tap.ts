/** A request as it went over the wire, and what came back so far. */
export interface Exchange {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** 0 until the answer's head has passed. */
  status: number;
  /** Bytes of the body that have passed. */
  bodyBytes: number;
}

/** A piece of a response: bytes of one head, or of one body. */
export interface ResponsePiece {
  readonly bytes: Buffer;
  /** The request that it answers; undefined where the bytes are not understood, such as TLS. */
  readonly exchange: Exchange | undefined;
  readonly isBody: boolean;
}

const headEnd = '\r\n\r\n';
const maxHeadBytes = 256 * 1024;

/**
 * Watches one connection of HTTP/1.1 and tells which bytes belong to which request, without
 * altering any. It understands what registries and their clients send each other: requests without
 * a body or with a Content-Length, answers with a Content-Length or until the connection closes;
 * what it does not understand passes as a body.
 */
export class HttpTap {
  readonly #onExchange: (exchange: Exchange) => void;
  readonly #waiting: Exchange[] = [];
  #requestHead: Buffer = Buffer.alloc(0);
  #requestBodyLeft = 0;
  #responseHead: Buffer = Buffer.alloc(0);
  #responseBodyLeft = 0;
  #answering: Exchange | undefined;

  /** @param onExchange called when the head of a request has passed */
  constructor(onExchange: (exchange: Exchange) => void) {
    this.#onExchange = onExchange;
  }

  /** Sees bytes from the client. */
  request(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#requestBodyLeft > 0) {
        const taken = Math.min(rest.length, this.#requestBodyLeft);
        this.#requestBodyLeft -= taken;
        rest = rest.subarray(taken);
        continue;
      }
      const head = splitHead(this.#requestHead, rest);
      if (head.complete === undefined) {
        this.#requestHead = head.rest.length > maxHeadBytes ? Buffer.alloc(0) : head.rest;
        return;
      }
      this.#requestHead = Buffer.alloc(0);
      rest = head.rest;
      this.#startExchange(head.complete.toString('latin1'));
    }
  }

  /** A request that has passed gets no answer from the other side. */
  forget(exchange: Exchange): void {
    const at = this.#waiting.indexOf(exchange);
    if (at !== -1) this.#waiting.splice(at, 1);
  }

  /** Sees bytes for the client and cuts them where heads and bodies meet. */
  response(bytes: Buffer): ResponsePiece[] {
    const pieces: ResponsePiece[] = [];
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#responseBodyLeft > 0) {
        const taken = rest.subarray(0, Math.min(rest.length, this.#responseBodyLeft));
        this.#responseBodyLeft -= taken.length;
        pieces.push({ bytes: taken, exchange: this.#answering, isBody: true });
        rest = rest.subarray(taken.length);
        continue;
      }
      const head = splitHead(this.#responseHead, rest);
      if (head.complete === undefined) {
        pieces.push({ bytes: rest, exchange: this.#waiting[0], isBody: false });
        this.#responseHead = head.rest.length > maxHeadBytes ? Buffer.alloc(0) : head.rest;
        return pieces;
      }
      const added = rest.length - head.rest.length;
      this.#startAnswer(head.complete.toString('latin1'));
      pieces.push({ bytes: rest.subarray(0, added), exchange: this.#answering, isBody: false });
      this.#responseHead = Buffer.alloc(0);
      rest = head.rest;
    }
    return pieces;
  }

  #startExchange(head: string): void {
    const match = /^(\S+) (\S+) HTTP\/1/.exec(head);
    if (match === null) return;
    const headers = parseHeaders(head);
    this.#requestBodyLeft = Number(headers['content-length'] ?? 0);
    const exchange = { method: match[1]!, path: match[2]!, headers, status: 0, bodyBytes: 0 };
    this.#waiting.push(exchange);
    this.#onExchange(exchange);
  }

  #startAnswer(head: string): void {
    const status = Number(/^HTTP\/1\.\d (\d{3})/.exec(head)?.[1] ?? 0);
    // An interim answer is followed by the real one.
    if (status >= 100 && status < 200) return;
    this.#answering = this.#waiting.shift();
    if (this.#answering !== undefined) this.#answering.status = status;
    const length = parseHeaders(head)['content-length'];
    const empty = this.#answering?.method === 'HEAD' || status === 204 || status === 304;
    this.#responseBodyLeft = empty ? 0 : Number(length ?? Number.POSITIVE_INFINITY);
  }
}

function splitHead(earlier: Buffer, bytes: Buffer): { complete?: Buffer; rest: Buffer } {
  const all = earlier.length === 0 ? bytes : Buffer.concat([earlier, bytes]);
  const end = all.indexOf(headEnd);
  if (end === -1) return { rest: all };
  const cut = end + headEnd.length;
  return { complete: all.subarray(0, cut), rest: all.subarray(cut) };
}

function parseHeaders(head: string): Record<string, string> {
  const lines = head.split('\r\n').slice(1);
  return Object.fromEntries(
    lines
      .map((line) => /^([^:]+):\s*(.*)$/.exec(line))
      .filter((match) => match !== null)
      .map((match) => [match[1]!.toLowerCase(), match[2]!]),
  );
}
