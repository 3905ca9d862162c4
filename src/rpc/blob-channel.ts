import type { CallLimits } from './agent-channel.ts';
import { BlobConnection } from './blob-connection.ts';
import { BLOB_PROTOCOL } from './blob-protocol.ts';
import { BlobRead, type BlobReadRequest } from './blob-read.ts';
import type { ClientIdentity } from './client-identity.ts';

/** Connections that are kept for the next blob. */
const MAX_IDLE = 4;
/** How long one is kept, milliseconds; the agent keeps it for longer. */
const IDLE_MS = 5000;
/** An agent that knew no such connections is not asked for one for so long, milliseconds. */
const OLDER_MS = 10 * 60_000;

export interface BlobChannelOptions {
  /** "host:port" of the agent. */
  readonly address: string;
  /** For messages: the node's name. */
  readonly name: string;
}

/**
 * Reads blobs from one agent, each over a connection of its own, which is kept for a while for the
 * next one.
 */
export class BlobChannel {
  readonly #options: BlobChannelOptions;
  readonly #identity: ClientIdentity;
  readonly #idle = new Map<BlobConnection, NodeJS.Timeout>();
  #olderUntilMs = 0;
  #isClosed = false;

  constructor(options: BlobChannelOptions, dependencies: { identity: ClientIdentity }) {
    this.#options = options;
    this.#identity = dependencies.identity;
  }

  /** Whether the agent is known to be of a version that has no connections for blobs. */
  get isOlder(): boolean {
    return performance.now() < this.#olderUntilMs;
  }

  /** Begins to read as soon as somebody iterates what it returns. */
  read(request: BlobReadRequest, limits: CallLimits): BlobRead {
    return new BlobRead({ ...request, node: this.#options.name }, limits, {
      take: () => this.#take(),
      dial: (onDialled) => this.#dial(onDialled),
      keep: (connection) => this.#keep(connection),
    });
  }

  /** Keeps no connection any longer. Reads that are under way go on. */
  close(): void {
    this.#isClosed = true;
    for (const connection of [...this.#idle.keys()]) this.#forget(connection);
  }

  /** One that was kept. */
  #take(): BlobConnection | undefined {
    // The newest is the one that the agent is least likely to end just now.
    const [connection, timer] = [...this.#idle].at(-1) ?? [];
    clearTimeout(timer);
    if (connection !== undefined) this.#idle.delete(connection);
    return connection;
  }

  async #dial(onDialled: (connection: BlobConnection) => void): Promise<boolean> {
    const connection = new BlobConnection(this.#options.address, this.#identity);
    onDialled(connection);
    connection.onceEnded(() => this.#forget(connection));
    if ((await connection.protocol()) === BLOB_PROTOCOL) return true;
    connection.destroy();
    this.#olderUntilMs = performance.now() + OLDER_MS;
    return false;
  }

  #keep(connection: BlobConnection): void {
    if (this.#isClosed || connection.hasEnded || this.#idle.size >= MAX_IDLE) {
      connection.destroy();
      return;
    }
    const timer = setTimeout(() => this.#forget(connection), IDLE_MS).unref();
    this.#idle.set(connection, timer);
  }

  #forget(connection: BlobConnection): void {
    clearTimeout(this.#idle.get(connection));
    if (this.#idle.delete(connection)) connection.destroy();
  }
}
