import type { Server } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';

/** How often connections are looked for that have nothing more to do, milliseconds. */
const SWEEP_MS = 50;

/** Ends a server so that the requests that run are answered, and nothing else is waited for. */
export class ServerDrain {
  readonly #server: Server | TlsServer;
  /**
   * The connections on which no request has come yet. Go's clients, containerd among them, open one
   * more than they use when two requests come at once, and keep it for later. Node does not count
   * it among the idle ones, so that a server that closes would wait for it.
   */
  readonly #unused = new Set<Socket>();

  /** @param server that does not listen yet */
  constructor(server: Server | TlsServer) {
    this.#server = server;
    // With TLS, requests come on another socket than the one that was accepted.
    const event = 'setSecureContext' in server ? 'secureConnection' : 'connection';
    server.on(event, (socket: Socket) => {
      this.#unused.add(socket);
      socket.once('close', () => this.#unused.delete(socket));
    });
    server.on('request', ({ socket }) => this.#unused.delete(socket));
  }

  /**
   * Lets running requests end; what still runs at the signal is cut.
   *
   * @param stop makes the server take no more connections, and resolves when it has none left
   */
  async run(
    stop: () => Promise<unknown>,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    const sweep = setInterval(() => this.#endWaiting(), SWEEP_MS);
    const cut = (): void => this.#server.closeAllConnections();
    signal.addEventListener('abort', cut, { once: true });
    try {
      const stopped = stop();
      if (signal.aborted) cut();
      await stopped;
    } finally {
      clearInterval(sweep);
      signal.removeEventListener('abort', cut);
    }
  }

  /** A client that wanted to send another request, or its first, asks somebody else. */
  #endWaiting(): void {
    this.#server.closeIdleConnections();
    for (const socket of this.#unused) socket.destroy();
  }
}
