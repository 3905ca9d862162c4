import {
  Client,
  Metadata,
  credentials,
  type CallOptions,
  type MethodDefinition,
  type status,
} from '@grpc/grpc-js';

import type { StoreCallOptions } from '../store.ts';
import { callFailure } from './call-failure.ts';
import { OneByOne } from './one-by-one.ts';
import { PacedStream } from './paced-stream.ts';
import { TurnStream } from './turn-stream.ts';

export interface ContainerdConnectionOptions {
  /** containerd's gRPC socket. */
  readonly socketPath: string;
  /** containerd's namespace; Kubernetes' is "k8s.io". */
  readonly namespace?: string;
  /** How long one answer may take, in milliseconds. */
  readonly callTimeoutMs?: number;
  /** How long a list, or the next message of a stream, may take, in milliseconds. */
  readonly listTimeoutMs?: number;
}

export interface CallLimits extends StoreCallOptions {
  /** What is tried, for the message of an error: "Cannot list the images of containerd". */
  readonly action: string;
  /** Of the answer, or of the next message; the connection's own when left out. */
  readonly timeoutMs?: number;
}

export interface UnaryLimits extends CallLimits {
  /** The status codes that mean undefined. */
  readonly missing?: readonly status[];
}

const defaultNamespace = 'k8s.io';
const defaultCallTimeoutMs = 2000;
const defaultListTimeoutMs = 10_000;
const maxReceiveBytes = 32 * 1024 * 1024;

/**
 * One connection to containerd, for one of its namespaces. It is made when first needed and again
 * whenever containerd comes back; while containerd is away every call fails at once.
 *
 * A call that fails is a StoreUnavailableError, except that a caller's own abort keeps its reason.
 */
export class ContainerdConnection {
  readonly namespace: string;
  readonly listTimeoutMs: number;
  readonly #client: Client;
  readonly #callTimeoutMs: number;

  /** @param dependencies.client of another connection, instead of one of its own */
  constructor(options: ContainerdConnectionOptions, dependencies: { client?: Client } = {}) {
    this.namespace = options.namespace ?? defaultNamespace;
    this.#callTimeoutMs = options.callTimeoutMs ?? defaultCallTimeoutMs;
    this.listTimeoutMs = options.listTimeoutMs ?? defaultListTimeoutMs;
    this.#client =
      dependencies.client ??
      new Client(`unix:${options.socketPath}`, credentials.createInsecure(), {
        'grpc.max_receive_message_length': maxReceiveBytes,
        'grpc.enable_retries': 0,
        'grpc.enable_http_proxy': 0,
        'grpc.use_local_subchannel_pool': 1,
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.min_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 2000,
      });
  }

  /** The same connection for another namespace. It is closed with this one, never by itself. */
  inNamespace(namespace: string): ContainerdConnection {
    return new ContainerdConnection(
      {
        socketPath: '',
        namespace,
        callTimeoutMs: this.#callTimeoutMs,
        listTimeoutMs: this.listTimeoutMs,
      },
      { client: this.#client },
    );
  }

  /** One question, one answer. @returns undefined when containerd says that there is no such thing */
  unary<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    limits: UnaryLimits,
  ): Promise<Response | undefined> {
    const { signal, action, timeoutMs = this.#callTimeoutMs } = limits;
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const abort = (): void => call.cancel();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        this.#metadata(),
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          signal?.removeEventListener('abort', abort);
          if (error === null) resolve(answer);
          else if (limits.missing?.includes(error.code) === true) resolve(undefined);
          else reject(callFailure(error, action, signal));
        },
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** One question, a stream of answers, fetched as they are asked for. */
  serverStream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    limits: CallLimits,
  ): PacedStream<Response> {
    const pace = new OneByOne();
    // A slow reader may take any time, so the deadline is on each message instead.
    const callOptions: CallOptions = { interceptors: [pace.interceptor] };
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.#metadata(),
      callOptions,
    );
    return new PacedStream(call, pace, { timeoutMs: this.listTimeoutMs, ...limits });
  }

  /**
   * A talk in turns: each message has one answer.
   *
   * @param limits.leaseId what is made meanwhile belongs to this lease
   */
  turnStream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    limits: CallLimits & { readonly leaseId?: string | undefined },
  ): TurnStream<Request, Response> {
    const metadata = this.#metadata();
    if (limits.leaseId !== undefined) metadata.set('containerd-lease', limits.leaseId);
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      metadata,
    );
    return new TurnStream(call, { timeoutMs: this.listTimeoutMs, ...limits });
  }

  close(): void {
    this.#client.close();
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    metadata.set('containerd-namespace', this.namespace);
    return metadata;
  }
}
