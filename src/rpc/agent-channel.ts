import {
  Client,
  Metadata,
  type CallOptions,
  type ChannelCredentials,
  type ClientWritableStream,
  type MethodDefinition,
} from '@grpc/grpc-js';
import { AgentError } from './agent-error.ts';
import { CancellableStream } from './cancellable-stream.ts';
import { roleName } from './identity.ts';
import { Readiness } from './readiness.ts';

/** What every call needs to end in time. */
export interface CallLimits {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

export interface AgentChannelOptions {
  /** "host:port" or "unix:/path". */
  readonly target: string;
  /** HTTP/2 flow-control window per stream and connection, bytes. */
  readonly windowBytes: number;
  /** For messages: the node's name, or "the own agent". */
  readonly name: string;
}

/** Calls to one agent. One HTTP/2 connection, opened when first needed, closed when idle. */
export class AgentChannel {
  /** For messages. */
  readonly name: string;
  readonly #client: Client;
  readonly #readiness: Readiness;

  constructor(options: AgentChannelOptions, dependencies: { credentials: ChannelCredentials }) {
    this.name = options.name;
    this.#client = new Client(options.target, dependencies.credentials, {
      'grpc-node.flow_control_window': options.windowBytes,
      'grpc.max_receive_message_length': 4 * 1024 * 1024,
      'grpc.enable_retries': 0,
      // Reaching a peer through a web proxy is never what a cluster wants.
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1,
      // Nodes are dialled by address, which must not stand in the TLS handshake: RFC 6066, 3.
      'grpc.ssl_target_name_override': roleName('agent'),
      'grpc.initial_reconnect_backoff_ms': 100,
      // Between two tries a call fails without one, and a lookup takes an agent that has just come
      // back for one that has nothing. Tries are made only for calls, so they cost little.
      'grpc.max_reconnect_backoff_ms': 200,
      'grpc.client_idle_timeout_ms': 300_000,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5_000,
    });
    this.#readiness = new Readiness(this.#client);
  }

  /** Whether a call would fail at once, since the last try to connect has failed. */
  get isFailing(): boolean {
    return this.#readiness.isFailing;
  }

  /**
   * Connects, if need be.
   *
   * @returns whether there is a connection: as soon as there is one, or after a moment
   */
  async connect(): Promise<boolean> {
    return this.#readiness.wait();
  }

  /**
   * One question, one answer.
   *
   * @param action what is being done, as in "Cannot ask node-3 for sha256:…"
   * @throws AgentError
   */
  unary<I, O>(
    method: MethodDefinition<I, O>,
    request: I,
    limits: CallLimits,
    action: string,
  ): Promise<O> {
    const { signal } = limits;
    const outcome = new Promise<O>((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(new AgentError('cancelled', `${action}: cancelled`));
        return;
      }
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        new Metadata(),
        callOptions(limits),
        (error, value) => {
          signal?.removeEventListener('abort', cancel);
          if (error !== null || value === undefined) reject(AgentError.from(error, action));
          else resolve(value);
        },
      );
      const cancel = (): void => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
    });
    // A closed client throws at once what it has to say.
    return outcome.catch((error: unknown) => {
      throw AgentError.from(error, action);
    });
  }

  /**
   * One question, many answers, pulled one at a time.
   *
   * @param options.isBulk it carries much, and lets everything else go first
   * @returns their iteration throws an AgentError when the stream breaks
   */
  stream<I, O>(
    method: MethodDefinition<I, O>,
    request: I,
    limits: CallLimits,
    { action, isBulk }: { readonly action: string; readonly isBulk: boolean },
  ): CancellableStream<O> {
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      isBulk ? bulkMetadata() : new Metadata(),
      callOptions(limits),
    );
    return new CancellableStream(call, action, limits.signal);
  }

  /**
   * Many messages to the agent, which says one thing at the end.
   *
   * @param onEnd called once: with nothing where it has ended well
   */
  upload<I, O>(
    method: MethodDefinition<I, O>,
    onEnd: (error: Error | undefined) => void,
  ): ClientWritableStream<I> {
    return this.#client.makeClientStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      (error) => onEnd(error ?? undefined),
    );
  }

  /** Takes no new calls; the connection goes when those under way have ended. */
  close(): void {
    this.#client.close();
  }
}

/**
 * RFC 9218: blobs take turns with each other on a connection, and everything else goes first.
 * Without this header the sender finishes one stream before it begins the next.
 */
function bulkMetadata(): Metadata {
  const metadata = new Metadata();
  metadata.set('priority', 'u=5, i');
  return metadata;
}

function callOptions(limits: CallLimits): CallOptions {
  return limits.timeoutMs === undefined ? {} : { deadline: Date.now() + limits.timeoutMs };
}
