import type { ChannelCredentials } from '@grpc/grpc-js';
import { PeerClient } from './peer-client.ts';

export interface AgentPoolOptions {
  /** HTTP/2 flow-control window per stream and connection, bytes. */
  readonly windowBytes: number;
  /** How many connections are kept at most; the one unused for longest goes first. */
  readonly maxClients: number;
}

/** Clients of other nodes' agents, one per address, made when first needed. */
export class AgentPool {
  readonly #options: AgentPoolOptions;
  readonly #credentials: ChannelCredentials;
  readonly #clients = new Map<string, PeerClient>();

  constructor(options: AgentPoolOptions, dependencies: { credentials: ChannelCredentials }) {
    this.#options = options;
    this.#credentials = dependencies.credentials;
  }

  /**
   * @param address "host:port" of the agent
   * @param name the node's name, for messages
   */
  client(address: string, name: string): PeerClient {
    const known = this.#clients.get(address);
    // A Map keeps insertion order: taking a client out and in again makes it the newest.
    this.#clients.delete(address);
    const client =
      known ??
      new PeerClient(
        { target: address, name, windowBytes: this.#options.windowBytes },
        { credentials: this.#credentials },
      );
    this.#clients.set(address, client);
    if (this.#clients.size > this.#options.maxClients) this.#dropOldest();
    return client;
  }

  /** Closes the clients of all other addresses, each when the calls under way on it have ended. */
  keepOnly(addresses: ReadonlySet<string>): void {
    for (const [address, client] of this.#clients) {
      if (addresses.has(address)) continue;
      this.#clients.delete(address);
      client.close();
    }
  }

  /** Takes no new calls; each connection goes when those under way on it have ended. */
  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #dropOldest(): void {
    const [oldest] = this.#clients;
    if (oldest === undefined) return;
    const [address, client] = oldest;
    this.#clients.delete(address);
    client.close();
  }
}
