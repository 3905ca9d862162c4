import {
  Client,
  Metadata,
  type CallOptions,
  type ChannelCredentials,
  type ClientWritableStream,
  type MethodDefinition,
} from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import type { Digest } from '../oci/digest.ts';
import { AgentError } from './agent-error.ts';
import {
  heldFromMessage,
  localMethods,
  peerMethods,
  safeNumber,
  tagFromMessage,
  tagToMessage,
  type HeldPart,
  type TagStatement,
} from './agent-protocol.ts';
import { CancellableStream } from './cancellable-stream.ts';
import {
  AbortIngestRequestSchema,
  InventoryRequestSchema,
  KeepRequestSchema,
  ListRequestSchema,
  ObserveRequestSchema,
  ReachRequestSchema,
  ReadRequestSchema,
  ReportCorruptRequestSchema,
  ResolveRequestSchema,
  StatRequestSchema,
  WatchRequestSchema,
  type InventoryResponse,
  type ListResponse,
  type LocateResponse,
  type WatchRequest,
} from './gen/salvor/agent/v1/agent_pb.ts';
import { reachFromMessage, type NodeReach } from './node-reach.ts';
import { proofToMessage, type ProofSummary } from './proof-summary.ts';
import { roleName } from './identity.ts';
import { readInventory } from './inventory-messages.ts';
import type { NodeInventory } from './inventory.ts';
import {
  locateFromMessage,
  locateToMessage,
  type LocateEvent,
  type LocateKey,
  type SecondLook,
} from './locate-messages.ts';
import type { ReadFrame } from './read-frame.ts';
import { Readiness } from './readiness.ts';

export type { LocatedHolder, LocateKey, LocateSummary } from './locate-messages.ts';

/** What every call needs to end in time. */
export interface CallLimits {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** What a node says about a blob. */
export interface PeerBlob {
  readonly sizeBytes: number;
  readonly verified: boolean;
  readonly busy: boolean;
}

/** What a node knows of a name. */
export interface NameKnowledge {
  readonly tags: readonly TagStatement[];
  /** The name's registry has once answered that node. */
  readonly registrySeen: boolean;
}

/** Frames of a Read in flight: pulled one at a time, so that a slow reader slows the sender. */
export interface ReadStream extends AsyncIterable<ReadFrame> {
  cancel(): void;
}

/** An image whose manifest has passed, and the indexes that name it. */
export interface PassedImage {
  readonly manifest: Digest;
  readonly indexes: readonly Digest[];
}

export interface AgentClientOptions {
  /** "host:port" or "unix:/path". */
  readonly target: string;
  /** HTTP/2 flow-control window per stream and connection, bytes. */
  readonly windowBytes: number;
  /** For messages: the node's name, or "the own agent". */
  readonly name: string;
}

/** Calls one agent. One HTTP/2 connection, opened when first needed, closed when idle. */
export class AgentClient {
  readonly #client: Client;
  readonly #name: string;
  readonly #readiness: Readiness;

  constructor(options: AgentClientOptions, dependencies: { credentials: ChannelCredentials }) {
    this.#name = options.name;
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
   * Whether the node holds a blob.
   *
   * @returns undefined when it does not
   * @throws AgentError
   */
  async stat(digest: Digest, limits: CallLimits): Promise<PeerBlob | undefined> {
    const answer = await this.#unary(
      peerMethods.stat,
      create(StatRequestSchema, { digest }),
      limits,
      `Cannot ask ${this.#name} for ${digest}`,
    );
    if (!answer.held) return undefined;
    const { verified, busy } = answer;
    return { sizeBytes: safeNumber(answer.sizeBytes), verified, busy };
  }

  /**
   * The bytes of a blob from an offset to its end, or `lengthBytes` of them.
   * The iteration throws an AgentError when the stream breaks.
   */
  read(
    request: {
      readonly digest: Digest;
      readonly offsetBytes: number;
      readonly lengthBytes?: number;
    },
    limits: CallLimits,
  ): ReadStream {
    const call = this.#client.makeServerStreamRequest(
      peerMethods.read.path,
      peerMethods.read.requestSerialize,
      peerMethods.read.responseDeserialize as unknown as (bytes: Buffer) => ReadFrame,
      create(ReadRequestSchema, {
        digest: request.digest,
        offsetBytes: BigInt(request.offsetBytes),
        lengthBytes: BigInt(request.lengthBytes ?? 0),
      }),
      bulkMetadata(),
      callOptions(limits),
    );
    return new CancellableStream(
      call,
      `Cannot read ${request.digest} from ${this.#name}`,
      limits.signal,
    );
  }

  /**
   * What the node knows a tag to name. Statements that make no sense are left out.
   *
   * @throws AgentError
   */
  async resolve(name: string, limits: CallLimits): Promise<NameKnowledge> {
    const answer = await this.#unary(
      peerMethods.resolve,
      create(ResolveRequestSchema, { name }),
      limits,
      `Cannot ask ${this.#name} for ${name}`,
    );
    const tags = answer.tags.map(tagFromMessage).filter((tag) => tag !== undefined);
    return { tags, registrySeen: answer.registrySeen };
  }

  /**
   * Tells a node that its copy of a blob is wrong.
   *
   * @throws AgentError
   */
  async reportCorrupt(digest: Digest, limits: CallLimits): Promise<void> {
    await this.#unary(
      peerMethods.reportCorrupt,
      create(ReportCorruptRequestSchema, { digest }),
      limits,
      `Cannot report ${digest} to ${this.#name}`,
    );
  }

  /**
   * Everything that the node has.
   *
   * @throws AgentError, of the kind "unimplemented" when the node's agent knows no inventories, and an
   *   error when what it says makes no sense
   */
  async inventory(limits: CallLimits): Promise<NodeInventory> {
    const call = this.#client.makeServerStreamRequest(
      peerMethods.inventory.path,
      peerMethods.inventory.requestSerialize,
      peerMethods.inventory.responseDeserialize,
      create(InventoryRequestSchema),
      bulkMetadata(),
      callOptions(limits),
    );
    const action = `Cannot take the inventory of ${this.#name}`;
    return readInventory(new CancellableStream<InventoryResponse>(call, action, limits.signal));
  }

  /**
   * Everything that the node holds, in parts of bounded size. What makes no sense is left out.
   *
   * @throws AgentError, from the iteration
   */
  async *list(limits: CallLimits): AsyncGenerator<HeldPart> {
    const call = this.#client.makeServerStreamRequest(
      peerMethods.list.path,
      peerMethods.list.requestSerialize,
      peerMethods.list.responseDeserialize,
      create(ListRequestSchema),
      bulkMetadata(),
      callOptions(limits),
    );
    const action = `Cannot ask ${this.#name} for all that it holds`;
    const stream = new CancellableStream<ListResponse>(call, action, limits.signal);
    for await (const part of stream) yield heldFromMessage(part);
  }

  /**
   * Asks a node which of its members it can ask.
   *
   * @param nodes only these, by name; none: all
   * @throws AgentError
   */
  async reach(nodes: readonly string[], limits: CallLimits): Promise<NodeReach> {
    const request = create(ReachRequestSchema, { nodes: [...nodes] });
    const action = `Cannot ask ${this.#name} whom it can reach`;
    return reachFromMessage(await this.#unary(peerMethods.reach, request, limits, action));
  }

  /**
   * Asks the own agent who has a key. Holders come as they answer, the summary last.
   *
   * @throws AgentError, from the iteration
   */
  async *locate(
    key: LocateKey,
    limits: CallLimits & { readonly again?: SecondLook | undefined },
  ): AsyncGenerator<LocateEvent> {
    const what = 'digest' in key ? key.digest : key.name;
    const call = this.#client.makeServerStreamRequest(
      localMethods.locate.path,
      localMethods.locate.requestSerialize,
      localMethods.locate.responseDeserialize,
      locateToMessage(key, limits.again),
      callOptions(limits),
    );
    const stream = new CancellableStream<LocateResponse>(
      call,
      `Cannot locate ${what} through ${this.#name}`,
      limits.signal,
    );
    for await (const message of stream) {
      const event = locateFromMessage(message);
      if (event !== undefined) yield event;
    }
  }

  /**
   * Tells the own agent what the upstream has just confirmed.
   *
   * @throws AgentError
   */
  async observe(name: string, tag: TagStatement, limits: CallLimits): Promise<void> {
    await this.#unary(
      localMethods.observe,
      create(ObserveRequestSchema, { name, tag: tagToMessage(tag) }),
      limits,
      `Cannot record ${name}`,
    );
  }

  /**
   * Tells the own agent what a proof of a report's verdicts came to.
   *
   * @throws AgentError
   */
  async recordProof(proof: ProofSummary, limits: CallLimits): Promise<void> {
    const request = proofToMessage(proof);
    const action = 'Cannot record what the proof came to';
    await this.#unary(localMethods.recordProof, request, limits, action);
  }

  /**
   * Makes the own node throw away what it has received of a blob.
   *
   * @returns how many unfinished writes that were
   * @throws AgentError
   */
  async abortIngest(digest: Digest, limits: CallLimits): Promise<number> {
    const answer = await this.#unary(
      localMethods.abortIngest,
      create(AbortIngestRequestSchema, { digest }),
      limits,
      `Cannot abort the ingest of ${digest}`,
    );
    return answer.aborted;
  }

  /**
   * Tells the own agent that a blob of an image goes to this node, so that its layers stay.
   *
   * @param notice.images the images that it is a part of, the likeliest first; none: the agent
   *   looks for them
   * @returns how many references were missing and are there now
   * @throws AgentError
   */
  async keep(
    notice: { readonly digest: Digest; readonly images: readonly PassedImage[] },
    limits: CallLimits,
  ): Promise<number> {
    const images = notice.images.map(({ manifest, indexes }) => ({
      manifest,
      indexes: [...indexes],
    }));
    const answer = await this.#unary(
      localMethods.keep,
      create(KeepRequestSchema, { digest: notice.digest, images }),
      limits,
      `Cannot have the image of ${notice.digest} kept`,
    );
    return answer.restored;
  }

  /**
   * Opens the channel for signs of life.
   *
   * @param events.onBegin the agent has seen the process and watches it
   * @param events.onEnd it no longer does, or never did; called once
   *
   * @returns `beat` to send one, `end` to part in peace
   */
  watch(
    options: { readonly pid: number; readonly timeoutMs: number; readonly processStart: string },
    events: { readonly onBegin?: () => void; readonly onEnd: (error: AgentError) => void },
  ): { beat(): void; end(): void } {
    const method = localMethods.watch;
    const call: ClientWritableStream<WatchRequest> = this.#client.makeClientStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      (error) =>
        events.onEnd(AgentError.from(error ?? new Error('ended'), 'Cannot keep the watch')),
    );
    call.on('metadata', () => events.onBegin?.());
    const message = create(WatchRequestSchema, {
      pid: BigInt(options.pid),
      timeoutMs: BigInt(options.timeoutMs),
      processStart: options.processStart,
    });
    call.write(message);
    return { beat: () => void call.write(message), end: () => call.end() };
  }

  /** Takes no new calls; the connection goes when those under way have ended. */
  close(): void {
    this.#client.close();
  }

  #unary<I, O>(
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
