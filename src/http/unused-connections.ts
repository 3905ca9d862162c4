import type { Server } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';

/**
 * The connections of a server on which no request has come yet. Go's clients, containerd among
 * them, open one more than they use when two requests come at once, and keep it for later. Node
 * does not count it among the idle ones, so that a server that closes would wait for it.
 */
export class UnusedConnections {
  readonly #sockets = new Set<Socket>();

  /** @param server that does not listen yet */
  constructor(server: Server | TlsServer) {
    // With TLS, requests come on another socket than the one that was accepted.
    const event = 'setSecureContext' in server ? 'secureConnection' : 'connection';
    server.on(event, (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    server.on('request', ({ socket }) => this.#sockets.delete(socket));
  }

  /** Ends them: a client that wanted to send a request asks somebody else. */
  end(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
