import type { Socket } from 'node:net';

/**
 * A bounded number of places for connections, shared fairly among the hosts that they come from:
 * when there is one too many, the host that has most gives one up. So whoever takes all places
 * takes them from itself, and others still get in.
 */
export class ConnectionPlaces {
  readonly #options: { readonly max: number; readonly gives: 'oldest' | 'newest' };
  readonly #hosts = new Map<Socket, string>();
  readonly #byHost = new Map<string, Set<Socket>>();

  /**
   * @param options.max how many places there are
   * @param options.gives which of its connections a host gives up: the newest where those that
   *   have a place are of use already, the oldest where that is still to be shown
   */
  constructor(options: { readonly max: number; readonly gives: 'oldest' | 'newest' }) {
    this.#options = options;
  }

  /** How many places are taken. */
  get taken(): number {
    return this.#hosts.size;
  }

  /**
   * Gives a connection a place, until it is closed or leaves.
   *
   * @returns the connection that is to be ended for it, which may be itself; undefined: none
   */
  take(socket: Socket): Socket | undefined {
    if (this.#hosts.has(socket)) return undefined;
    const host = socket.remoteAddress ?? '';
    const ofHost = this.#byHost.get(host) ?? new Set();
    this.#byHost.set(host, ofHost.add(socket));
    this.#hosts.set(socket, host);
    if (this.taken <= this.#options.max) return undefined;
    const given = this.#given(ofHost);
    if (given !== undefined) this.leave(given);
    return given;
  }

  /** Frees the place of a connection. Harmless when it has none. */
  leave(socket: Socket): void {
    const host = this.#hosts.get(socket);
    if (host === undefined) return;
    this.#hosts.delete(socket);
    const ofHost = this.#byHost.get(host);
    ofHost?.delete(socket);
    if (ofHost?.size === 0) this.#byHost.delete(host);
  }

  /** @param ofHost those of the host that has taken one too many */
  #given(ofHost: ReadonlySet<Socket>): Socket | undefined {
    const isOldest = this.#options.gives === 'oldest';
    // For one more of a host that has as many, nobody else's is given up that is of use.
    let most = isOldest ? new Set<Socket>() : ofHost;
    for (const sockets of this.#byHost.values()) if (sockets.size > most.size) most = sockets;
    return isOldest ? most.values().next().value : [...most].at(-1);
  }
}
