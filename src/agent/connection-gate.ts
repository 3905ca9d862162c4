import type { Server, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { ConnectionPlaces } from '../http/connection-places.ts';

/** A listener, over TLS or not. */
export type TlsListener = Server & {
  on(event: 'secureConnection', listener: (socket: TLSSocket) => void): unknown;
  on(
    event: 'tlsClientError',
    listener: (error: NodeJS.ErrnoException, socket: TLSSocket) => void,
  ): unknown;
};

/** Where a connection comes from, as far as that is known. */
export interface Remote {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

/** How many connections an agent holds. */
export interface ConnectionLimits {
  /** Those that have shown a certificate of the cluster. */
  readonly maxConnections: number;
  /** Those that have not, yet. */
  readonly maxHandshakes: number;
}

/** Accepted in one turn of the event loop, and not closed before the next. */
const BURST = 512;

/**
 * Bounds the connections to a listener. Who has not shown a certificate waits in places of its
 * own: nobody can keep other nodes out, or take memory, by opening connections and saying nothing.
 * In both kinds of place, it is the host with most connections that has to give one up.
 */
export class ConnectionGate {
  readonly #handshakes: ConnectionPlaces;
  readonly #connections: ConnectionPlaces;
  readonly #limits: ConnectionLimits;
  /** Those in the middle of TLS, by their ends. */
  readonly #pending = new Map<string, Socket>();
  readonly #onCrowd: (remote: Remote) => void;

  /** @param dependencies.onCrowd told of every connection that was one too many */
  constructor(
    limits: ConnectionLimits,
    dependencies: {
      readonly onCrowd: (remote: Remote) => void;
    },
  ) {
    this.#limits = limits;
    // A handshake that goes on for longer than others is the less likely to be a node's.
    this.#handshakes = new ConnectionPlaces({ max: limits.maxHandshakes, gives: 'oldest' });
    // Streams are under way on those that are here.
    this.#connections = new ConnectionPlaces({ max: limits.maxConnections, gives: 'newest' });
    this.#onCrowd = dependencies.onCrowd;
  }

  /**
   * Bounds the connections of a server, that need not listen yet.
   *
   * @param options.isSecure whether connections begin with TLS
   */
  watch(listener: TlsListener, options: { readonly isSecure: boolean }): void {
    const { maxConnections, maxHandshakes } = this.#limits;
    const pending = this.#pending;
    listener.maxConnections = maxConnections + maxHandshakes + BURST;
    listener.on('drop', (remote) => this.#onCrowd(remote ?? {}));
    listener.on('connection', (socket) => {
      const ends = endsOf(socket);
      socket.once('close', () => {
        this.#handshakes.leave(socket);
        this.#connections.leave(socket);
        if (pending.get(ends) === socket) pending.delete(ends);
      });
      if (options.isSecure) pending.set(ends, socket);
      this.#end((options.isSecure ? this.#handshakes : this.#connections).take(socket));
    });
    listener.on('secureConnection', (secured: TLSSocket) => {
      const socket = pending.get(endsOf(secured));
      pending.delete(endsOf(secured));
      // Its other end has gone meanwhile, or nobody counts it.
      if (socket === undefined) return void secured.destroy();
      this.#handshakes.leave(socket);
      this.#end(this.#connections.take(socket));
    });
  }

  /**
   * Ends the connections that are in the middle of TLS: for a listener that was closed, which is
   * not over before they are, and has no use for them.
   */
  endHandshakes(): void {
    for (const socket of this.#pending.values()) socket.destroy();
  }

  #end(socket: Socket | undefined): void {
    if (socket === undefined) return;
    this.#onCrowd({ remoteAddress: socket.remoteAddress, remotePort: socket.remotePort });
    socket.destroy();
  }
}

/** What is the same of a socket and of the TLS over it, and of no other that is open. */
function endsOf(socket: Socket): string {
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
