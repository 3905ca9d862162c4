import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type AddressInfo, type ListenOptions, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { splitAddress } from '../rpc/address.ts';
import { localService, peerService } from '../rpc/agent-protocol.ts';
import { BLOB_PROTOCOL } from '../rpc/blob-protocol.ts';
import type { ServerIdentity } from '../rpc/server-identity.ts';
import type { BlobConnections } from './blob-connections.ts';
import { callLimits, type CallLimitOptions } from './call-limits.ts';
import { ConnectionGate, type ConnectionLimits, type TlsListener } from './connection-gate.ts';
import type { RefusedConnections } from './refused-connections.ts';

export interface AgentServerOptions extends ConnectionLimits {
  /** HTTP/2 flow-control window, bytes; what a receiver may have in flight. */
  readonly windowBytes: number;
  readonly maxConcurrentStreams: number;
  /** Unless told otherwise, {@link DEFAULT_CALLS}. */
  readonly calls?: CallLimitOptions;
}

/** A request of the longest is 64 KiB, so that calls whose requests are not all there take 128 MiB. */
const DEFAULT_CALLS: CallLimitOptions = {
  maxCalls: 2048,
  requestMs: 5000,
  failureMs: 5000,
  answerMs: 90_000,
};

export interface ListenerParts {
  /** With it connections begin with TLS; without it everybody gets in. */
  readonly identity?: ServerIdentity;
  /** For a client to get through TLS, milliseconds; 5 s where left out. */
  readonly handshakeMs?: number;
  /** Told of clients that do not get in. */
  readonly refused?: RefusedConnections;
}

/** One listener of an agent: for peers on the node address, or for the own registry. */
export class AgentServer {
  readonly #grpc: Server;
  readonly #blobs: BlobConnections | undefined;
  readonly #limits: ConnectionLimits;
  #listener: TlsListener | undefined;
  #gate: ConnectionGate | undefined;

  constructor(
    options: AgentServerOptions,
    services: {
      peer: UntypedServiceImplementation;
      local?: UntypedServiceImplementation;
      blobs?: BlobConnections;
    },
  ) {
    this.#limits = options;
    this.#blobs = services.blobs;
    this.#grpc = new Server({
      interceptors: [callLimits(options.calls ?? DEFAULT_CALLS)],
      'grpc-node.flow_control_window': options.windowBytes,
      'grpc.max_concurrent_streams': options.maxConcurrentStreams,
      'grpc.max_receive_message_length': 64 * 1024,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
    this.#grpc.addService(peerService, services.peer);
    if (services.local !== undefined) this.#grpc.addService(localService, services.local);
  }

  /**
   * Listens on a TCP address.
   *
   * @param address "host:port"; port 0 takes a free one
   * @returns the port
   * @throws when the address cannot be taken
   */
  async listen(address: string, parts: ListenerParts = {}): Promise<number> {
    const listener = await this.#listen({ where: address, ...splitAddress(address) }, parts);
    return (listener.address() as AddressInfo).port;
  }

  /**
   * Listens on a unix socket that only this user and group may use. A socket file that a dead
   * process left behind is replaced.
   *
   * @throws when the socket cannot be made
   */
  async listenUnix(path: string): Promise<void> {
    await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    await rm(path, { force: true });
    await this.#listen({ where: path, path }, {});
    await chmod(path, 0o660);
  }

  /** Takes no new calls and lets running ones end; what still runs at the signal is cut. */
  async close(options: { readonly signal: AbortSignal }): Promise<void> {
    const cut = (): void => {
      this.#grpc.forceShutdown();
      this.#blobs?.cut();
    };
    options.signal.addEventListener('abort', cut, { once: true });
    try {
      const closed = this.#listener && once(this.#listener, 'close');
      this.#listener?.close();
      this.#blobs?.drain();
      const isOver = new Promise<void>((resolve) => this.#grpc.tryShutdown(() => resolve()));
      this.#gate?.endHandshakes();
      if (options.signal.aborted) cut();
      await Promise.all([closed, isOver]);
    } finally {
      options.signal.removeEventListener('abort', cut);
    }
  }

  async #listen(
    address: ListenOptions & { readonly where: string },
    { identity, handshakeMs, refused }: ListenerParts,
  ): Promise<TlsListener> {
    const calls = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    const listener: TlsListener =
      identity === undefined
        ? createServer((socket) => calls.injectConnection(socket))
        : this.#secured(identity, { handshakeMs, forCalls: (s) => calls.injectConnection(s) });
    const gate = new ConnectionGate(this.#limits, {
      onCrowd: (remote) => refused?.noteCrowd(remote),
    });
    gate.watch(listener, { isSecure: identity !== undefined });
    refused?.watch(listener);
    this.#gate = gate;
    const listening = once(listener, 'listening');
    listener.listen(address);
    try {
      await listening;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`Cannot listen on ${address.where}: ${reason}`, { cause: error });
    }
    // Who cannot be accepted just now, as files run out, comes again; the others stay.
    listener.on('error', () => undefined);
    this.#listener = listener;
    return listener;
  }

  /** What a client wants it says in TLS: calls, as HTTP/2, unless it wants bytes alone. */
  #secured(
    identity: ServerIdentity,
    options: {
      readonly handshakeMs: number | undefined;
      readonly forCalls: (socket: Socket) => void;
    },
  ): TlsListener {
    const { handshakeMs, forCalls } = options;
    const blobs = this.#blobs;
    const listener = createTlsServer({
      ...identity.options(handshakeMs === undefined ? {} : { handshakeMs }),
      ALPNProtocols: blobs === undefined ? ['h2'] : [BLOB_PROTOCOL, 'h2'],
    });
    listener.on('secureConnection', (socket: TLSSocket) => {
      // The end of a connection says all that there is to say.
      socket.on('error', () => undefined);
      if (socket.alpnProtocol === BLOB_PROTOCOL) blobs?.take(socket);
      else forCalls(socket);
    });
    listener.on('tlsClientError', (_error, socket) => socket.destroy());
    identity.keepUpToDate(listener);
    return listener;
  }
}
