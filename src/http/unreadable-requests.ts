import type { ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { STATUS_CODES } from './node-http.ts';
import { ociErrorAnswer, type WireAnswer } from './wire-answer.ts';

/** How long a client may take to read that it was not understood, milliseconds. */
const LINGER_MS = 1000;

/**
 * Answers what the HTTP parser could not make a request of, so that there is an answer for
 * everything that comes in. The connection ends with it, since nobody knows where the next
 * request would begin.
 */
export class UnreadableRequests {
  readonly #onAnswer: (status: number) => void;
  readonly #latest = new WeakMap<Duplex, ServerResponse>();
  readonly #refused = new WeakSet<Duplex>();

  /** @param dependencies.onAnswer told the status of each that could not be read, for metrics */
  constructor(dependencies: { readonly onAnswer: (status: number) => void }) {
    this.#onAnswer = dependencies.onAnswer;
  }

  /** Notes that a connection has something to answer. */
  watch(response: ServerResponse): void {
    if (response.socket !== null) this.#latest.set(response.socket, response);
  }

  /**
   * For the event "clientError" of an HTTP server, which is repeated for everything that the
   * client still sends.
   */
  readonly refuse = (error: Error & { readonly code?: string }, socket: Duplex): void => {
    if (this.#refused.has(socket)) return;
    const response = this.#latest.get(socket);
    // Into the middle of a body an answer would be written as if it were a part of it.
    const isMidAnswer = response?.headersSent === true && !response.writableFinished;
    if (error.code === 'ECONNRESET' || !socket.writable || isMidAnswer) {
      socket.destroy();
      return;
    }
    const answer = answerTo(error.code);
    this.#onAnswer(answer.status);
    this.end(socket, answer);
  };

  /** Ends a connection with an answer. */
  end(socket: Duplex, answer: WireAnswer): void {
    this.#refused.add(socket);
    socket.on('error', () => socket.destroy());
    socket.end(render(answer));
    // Closed at once, with input unread, it would be a reset that overtakes the answer.
    socket.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => clearTimeout(timer));
  }
}

function answerTo(code: string | undefined): WireAnswer {
  switch (code ?? '') {
    case 'HPE_HEADER_OVERFLOW':
      return refusal(431, 'The headers are larger than this mirror reads');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return refusal(408, 'The request did not come in time');
    default:
      return refusal(400, 'This is no HTTP request');
  }
}

function refusal(status: number, message: string): WireAnswer {
  return ociErrorAnswer(status, { code: 'UNSUPPORTED', message });
}

function render({ status, headers, body }: WireAnswer): Buffer {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`);
  const head =
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Refused'}\r\n` +
    `${lines.join('')}connection: close\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.isBuffer(body) ? body : Buffer.alloc(0)]);
}
