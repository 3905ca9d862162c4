import type { TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { encodeBlobFailure, encodeBlobPiece } from '../rpc/blob-protocol.ts';
import type { ReadRequest } from '../rpc/gen/salvor/agent/v1/agent_pb.ts';
import { BlobRequests } from './blob-requests.ts';
import { writeTo, type FrameSink } from './blob-sender.ts';
import type { Caller } from './caller-roles.ts';
import { RpcFailure } from './rpc-failure.ts';
import { attempt, type HandlerContext } from './rpc-handlers.ts';

export interface BlobConnectionOptions {
  /** For the first request of a connection to come, milliseconds. */
  readonly requestMs: number;
  /** The same for each that follows. */
  readonly idleMs: number;
  /** For a client to take why it gets no bytes, milliseconds. */
  readonly failureMs: number;
}

const DEFAULTS: BlobConnectionOptions = { requestMs: 5000, idleMs: 60_000, failureMs: 5000 };

/** Sends what a caller asked for. */
export type SendBlob = (
  request: ReadRequest,
  caller: Caller,
  sink: FrameSink,
  signal: AbortSignal,
) => Promise<void>;

/**
 * Connections over which other nodes read blobs and do nothing else: BlobAnswer in
 * proto/salvor/agent/v1/agent.proto says what goes over them.
 */
export class BlobConnections {
  readonly #options: BlobConnectionOptions;
  readonly #send: SendBlob;
  readonly #context: HandlerContext;
  readonly #all = new Set<TLSSocket>();
  readonly #waiting = new Set<TLSSocket>();
  #isDraining = false;

  constructor(
    options: Partial<BlobConnectionOptions>,
    dependencies: HandlerContext & { readonly send: SendBlob },
  ) {
    this.#options = { ...DEFAULTS, ...options };
    const { log, metrics } = dependencies;
    this.#send = dependencies.send;
    this.#context = { log, metrics };
  }

  /** Answers what comes over a connection, and ends it. */
  take(socket: TLSSocket): void {
    if (this.#isDraining) {
      socket.destroy();
      return;
    }
    this.#all.add(socket);
    socket.once('close', () => this.#all.delete(socket));
    socket.setNoDelay(true);
    void this.#serve(socket).finally(() => {
      this.#waiting.delete(socket);
      socket.destroy();
    });
  }

  /** Takes no more requests; answers that are under way go on. */
  drain(): void {
    this.#isDraining = true;
    for (const socket of this.#waiting) socket.destroy();
  }

  /** Ends every connection at once. */
  cut(): void {
    this.#isDraining = true;
    for (const socket of this.#all) socket.destroy();
  }

  async #serve(socket: TLSSocket): Promise<void> {
    const gone = new AbortController();
    const abort = (): void => gone.abort();
    socket.once('end', abort);
    socket.once('close', abort);
    const caller = callerOf(socket);
    const requests = new BlobRequests(socket);
    let timeoutMs = this.#options.requestMs;
    let goesOn = true;
    while (goesOn && !this.#isDraining) {
      this.#waiting.add(socket);
      const request = await requests.next({ timeoutMs }).catch(() => 'nonsense' as const);
      this.#waiting.delete(socket);
      if (request === undefined) return;
      goesOn = await this.#answer(
        socket,
        async (sink) => {
          if (request === 'nonsense') throw new RpcFailure(status.INVALID_ARGUMENT, 'no request');
          await this.#send(request, caller, sink, gone.signal);
        },
        gone.signal,
      );
      if (request === 'nonsense') return;
      timeoutMs = this.#options.idleMs;
    }
  }

  /** @returns whether another request may come */
  async #answer(
    socket: TLSSocket,
    send: (sink: FrameSink) => Promise<void>,
    signal: AbortSignal,
  ): Promise<boolean> {
    let hasBegun = false as boolean;
    const sink: FrameSink = {
      encode: encodeBlobPiece,
      write: (piece, onWritten) => {
        hasBegun = true;
        socket.write(piece, onWritten);
      },
    };
    const outcome = await attempt('read', { ...this.#context, signal }, () => send(sink));
    if ('value' in outcome) return true;
    // Whoever has got bytes learns from the end of the connection that there are no more.
    if (hasBegun || signal.aborted) return false;
    const { code, details: message } = outcome.failure;
    const limits = { stallMs: this.#options.failureMs, signal };
    return writeTo(socket, encodeBlobFailure({ code, message }), limits).then(
      () => true,
      () => false,
    );
  }
}

function callerOf(socket: TLSSocket): Caller {
  // Asked now: once the connection has ended, nobody knows.
  const peer = `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`;
  const certificate = socket.getPeerCertificate();
  return {
    getPeer: () => peer,
    getAuthContext: () => (socket.authorized ? { sslPeerCertificate: certificate } : {}),
  };
}
