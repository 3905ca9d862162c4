import { chmod, mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { localService, peerService } from '../rpc/agent-protocol.ts';
import { callLimits, type CallLimitOptions } from './call-limits.ts';
import { ConnectionGate, type ConnectionLimits } from './connection-gate.ts';
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

/** One listener of an agent: for peers on the node address, or for the own registry. */
export class AgentServer {
  readonly #server: Server;
  readonly #limits: ConnectionLimits;
  readonly #gates: ConnectionGate[] = [];

  constructor(
    options: AgentServerOptions,
    services: { peer: UntypedServiceImplementation; local?: UntypedServiceImplementation },
  ) {
    this.#limits = options;
    this.#server = new Server({
      interceptors: [callLimits(options.calls ?? DEFAULT_CALLS)],
      'grpc-node.flow_control_window': options.windowBytes,
      'grpc.max_concurrent_streams': options.maxConcurrentStreams,
      'grpc.max_receive_message_length': 64 * 1024,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
    this.#server.addService(peerService, services.peer);
    if (services.local !== undefined) this.#server.addService(localService, services.local);
  }

  /**
   * Listens on a TCP address.
   *
   * @param address "host:port"; port 0 takes a free one
   * @param options.refused told of clients that do not get in
   * @returns the port
   * @throws when the address cannot be taken
   */
  async listen(
    address: string,
    credentials: ServerCredentials,
    options: { readonly refused?: RefusedConnections } = {},
  ): Promise<number> {
    const port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(address, credentials, (error, bound) => {
        if (error === null) resolve(bound);
        else reject(new Error(`Cannot listen on ${address}: ${error.message}`, { cause: error }));
      });
    });
    const { refused } = options;
    const gate = new ConnectionGate(this.#limits, {
      onCrowd: (remote) => refused?.noteCrowd(remote),
    });
    this.#gates.push(gate);
    gate.watch(this.#server, { isSecure: credentials._isSecure() });
    refused?.watch(this.#server);
    return port;
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
    await this.listen(`unix:${path}`, ServerCredentials.createInsecure());
    await chmod(path, 0o660);
  }

  /** Takes no new calls and lets running ones end; what still runs at the signal is cut. */
  async close(options: { readonly signal: AbortSignal }): Promise<void> {
    const cut = (): void => this.#server.forceShutdown();
    options.signal.addEventListener('abort', cut, { once: true });
    try {
      await new Promise<void>((resolve) => {
        this.#server.tryShutdown(() => resolve());
        for (const gate of this.#gates) gate.endHandshakes();
        if (options.signal.aborted) cut();
      });
    } finally {
      options.signal.removeEventListener('abort', cut);
    }
  }
}
