import type { ChannelCredentials } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import type { Digest } from '../oci/digest.ts';
import { AgentChannel, type AgentChannelOptions, type CallLimits } from './agent-channel.ts';
import {
  heldFromMessage,
  peerMethods,
  safeNumber,
  tagFromMessage,
  type HeldPart,
  type TagStatement,
} from './agent-protocol.ts';
import {
  InventoryRequestSchema,
  ListRequestSchema,
  ReachRequestSchema,
  ReadRequestSchema,
  ReportCorruptRequestSchema,
  ResolveRequestSchema,
  StatRequestSchema,
} from './gen/salvor/agent/v1/agent_pb.ts';
import { readInventory } from './inventory-messages.ts';
import type { NodeInventory } from './inventory.ts';
import { reachFromMessage, type NodeReach } from './node-reach.ts';
import { BlobChannel } from './blob-channel.ts';
import { OlderAgentError, type BlobRead, type BlobReadRequest } from './blob-read.ts';
import { MutualChannelCredentials } from './channel-credentials.ts';
import type { ReadFrame } from './read-frame.ts';

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

/** For fewer bytes a connection of their own is not worth its handshake. */
const MANY_BYTES = 1024 * 1024;

/** Asks an agent what every agent answers to every node: the Peer service. */
export class PeerClient {
  protected readonly channel: AgentChannel;
  /** Only over TLS: the own agent is asked by calls. */
  readonly #blobs: BlobChannel | undefined;

  constructor(options: AgentChannelOptions, dependencies: { credentials: ChannelCredentials }) {
    this.channel = new AgentChannel(options, dependencies);
    const { credentials } = dependencies;
    const { name, target: address } = options;
    if (credentials instanceof MutualChannelCredentials) {
      this.#blobs = new BlobChannel({ address, name }, { identity: credentials.identity });
    }
  }

  /** Whether a call would fail at once, since the last try to connect has failed. */
  get isFailing(): boolean {
    return this.channel.isFailing;
  }

  /**
   * Connects, if need be.
   *
   * @returns whether there is a connection: as soon as there is one, or after a moment
   */
  async connect(): Promise<boolean> {
    return this.channel.connect();
  }

  /**
   * Whether the node holds a blob.
   *
   * @returns undefined when it does not
   * @throws AgentError
   */
  async stat(digest: Digest, limits: CallLimits): Promise<PeerBlob | undefined> {
    const answer = await this.channel.unary(
      peerMethods.stat,
      create(StatRequestSchema, { digest }),
      limits,
      `Cannot ask ${this.channel.name} for ${digest}`,
    );
    if (!answer.held) return undefined;
    const { verified, busy } = answer;
    return { sizeBytes: safeNumber(answer.sizeBytes), verified, busy };
  }

  /**
   * The bytes of a blob from an offset to its end, or `lengthBytes` of them. Many of them come over
   * a connection of their own, where the agent can do that.
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
    const part = { lengthBytes: 0, ...request };
    const isMuch = part.lengthBytes === 0 || part.lengthBytes > MANY_BYTES;
    if (!isMuch || this.#blobs === undefined || this.#blobs.isOlder) {
      return this.#readByCall(part, limits);
    }
    const own = this.#blobs.read(part, limits);
    return new EitherRead(own, () => this.#readByCall(part, limits));
  }

  /**
   * What the node knows a tag to name. Statements that make no sense are left out.
   *
   * @throws AgentError
   */
  async resolve(name: string, limits: CallLimits): Promise<NameKnowledge> {
    const answer = await this.channel.unary(
      peerMethods.resolve,
      create(ResolveRequestSchema, { name }),
      limits,
      `Cannot ask ${this.channel.name} for ${name}`,
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
    await this.channel.unary(
      peerMethods.reportCorrupt,
      create(ReportCorruptRequestSchema, { digest }),
      limits,
      `Cannot report ${digest} to ${this.channel.name}`,
    );
  }

  /**
   * Everything that the node has.
   *
   * @throws AgentError, of the kind "unimplemented" when the node's agent knows no inventories, and an
   *   error when what it says makes no sense
   */
  async inventory(limits: CallLimits): Promise<NodeInventory> {
    const action = `Cannot take the inventory of ${this.channel.name}`;
    const request = create(InventoryRequestSchema);
    const options = { action, isBulk: true };
    return readInventory(this.channel.stream(peerMethods.inventory, request, limits, options));
  }

  /**
   * Everything that the node holds, in parts of bounded size. What makes no sense is left out.
   *
   * @throws AgentError, from the iteration
   */
  async *list(limits: CallLimits): AsyncGenerator<HeldPart> {
    const action = `Cannot ask ${this.channel.name} for all that it holds`;
    const request = create(ListRequestSchema);
    const stream = this.channel.stream(peerMethods.list, request, limits, { action, isBulk: true });
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
    const action = `Cannot ask ${this.channel.name} whom it can reach`;
    return reachFromMessage(await this.channel.unary(peerMethods.reach, request, limits, action));
  }

  /** Takes no new calls; the connection goes when those under way have ended. */
  close(): void {
    this.channel.close();
    this.#blobs?.close();
  }

  #readByCall(request: BlobReadRequest, limits: CallLimits): ReadStream {
    const stream: unknown = this.channel.stream(
      peerMethods.read,
      create(ReadRequestSchema, {
        digest: request.digest,
        offsetBytes: BigInt(request.offsetBytes),
        lengthBytes: BigInt(request.lengthBytes),
      }),
      limits,
      { action: `Cannot read ${request.digest} from ${this.channel.name}`, isBulk: true },
    );
    // What its codec decodes are frames, not messages.
    return stream as ReadStream;
  }
}

/** A read over a connection of its own or, where the agent knows no such thing, by a call. */
class EitherRead implements ReadStream {
  readonly #byCall: () => ReadStream;
  #running: ReadStream;
  #frames: AsyncIterator<ReadFrame>;
  #hasBegun = false;
  #isCancelled = false;

  constructor(own: BlobRead, byCall: () => ReadStream) {
    this.#byCall = byCall;
    this.#running = own;
    this.#frames = own[Symbol.asyncIterator]();
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#running.cancel();
  }

  // No generator: one more for each frame would only take time.
  [Symbol.asyncIterator](): AsyncIterator<ReadFrame> {
    return {
      next: () => (this.#hasBegun ? this.#frames.next() : this.#begin()),
      return: async () => {
        await this.#frames.return?.();
        return { done: true, value: undefined };
      },
    };
  }

  async #begin(): Promise<IteratorResult<ReadFrame>> {
    this.#hasBegun = true;
    try {
      return await this.#frames.next();
    } catch (error) {
      if (!(error instanceof OlderAgentError)) throw error;
    }
    this.#running = this.#byCall();
    if (this.#isCancelled) this.#running.cancel();
    this.#frames = this.#running[Symbol.asyncIterator]();
    return this.#frames.next();
  }
}
