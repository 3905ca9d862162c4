import { create } from '@bufbuild/protobuf';
import {
  status,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Digest } from '../oci/digest.ts';
import { tagToMessage } from '../rpc/agent-protocol.ts';
import { inventoryMessages } from '../rpc/inventory-messages.ts';
import { reachToMessage } from '../rpc/node-reach.ts';
import type { Role } from '../rpc/identity.ts';
import { encodeReadFrame } from '../rpc/read-frame.ts';
import {
  HeldBlobSchema,
  HeldNameSchema,
  ListResponseSchema,
  ReportCorruptResponseSchema,
  ResolveResponseSchema,
  StatResponseSchema,
  type InventoryRequest,
  type InventoryResponse,
  type ListRequest,
  type ListResponse,
  type ReachRequest,
  type ReadRequest,
  type ReportCorruptRequest,
  type ResolveRequest,
  type StatRequest,
} from '../rpc/gen/salvor/agent/v1/agent_pb.ts';
import { notePassedBytes } from '../telemetry/passed-bytes.ts';
import type { AgentMetrics } from './agent-metrics.ts';
import { BlobConnections, type BlobConnectionOptions } from './blob-connections.ts';
import { BlobReads, type BlobReadOptions, type ReaderCount } from './blob-reads.ts';
import { writeTo, type FrameSink } from './blob-sender.ts';
import { CallerRoles, type PeerMethod } from './caller-roles.ts';
import type { HeldContent } from './held-content.ts';
import { HostShare, hostOf } from './host-share.ts';
import type { Inventories } from './inventory/inventories.ts';
import type { Reach } from './reach.ts';
import { requestedDigest } from './requested-digest.ts';
import { RpcFailure } from './rpc-failure.ts';
import { streamHandler, unaryHandler, type HandlerContext } from './rpc-handlers.ts';

export interface PeerServiceOptions extends BlobReadOptions {
  /** For everything that a list or an inventory says to be taken, milliseconds; a minute if left out. */
  readonly listingMs?: number;
  /** Lists, inventories and looks at all others at a time; 64 if left out. A host may have a quarter. */
  readonly maxListings?: number;
  /**
   * Who may call what, by the roles in the caller's certificate; undefined on a unix socket, where
   * the file's permissions decide.
   */
  readonly allowedRoles?: Readonly<Record<PeerMethod, readonly Role[]>>;
}

const LIST_BATCH = 500;
const MAX_REACHED = 4096;
const LISTING_MS = 60_000;
const MAX_LISTINGS = 64;

/** Serves what this node holds to other nodes. */
export class PeerService {
  readonly #options: PeerServiceOptions;
  readonly #content: HeldContent;
  readonly #context: HandlerContext;
  readonly #reads: BlobReads;
  readonly #roles: CallerRoles;
  readonly #inventories: Pick<Inventories, 'current'>;
  readonly #reach: Pick<Reach, 'look'>;
  readonly #listings: HostShare;

  constructor(
    options: PeerServiceOptions,
    dependencies: {
      content: HeldContent;
      metrics: AgentMetrics;
      log: HandlerContext['log'];
      readers: ReaderCount;
      inventories: Pick<Inventories, 'current'>;
      reach: Pick<Reach, 'look'>;
    },
  ) {
    this.#options = options;
    const { maxListings: max = MAX_LISTINGS } = options;
    this.#listings = new HostShare({ max, maxPerHost: Math.ceil(max / 4) });
    this.#content = dependencies.content;
    this.#reads = new BlobReads(options, dependencies);
    this.#roles = new CallerRoles(options.allowedRoles, dependencies);
    this.#inventories = dependencies.inventories;
    this.#reach = dependencies.reach;
    this.#context = { log: dependencies.log, metrics: dependencies.metrics };
  }

  /** The handlers for a grpc-js server. */
  implementation(): UntypedServiceImplementation {
    const context = this.#context;
    return {
      stat: unaryHandler('stat', context, (call: ServerUnaryCall<StatRequest, unknown>, signal) => {
        this.#roles.require('stat', call);
        return this.#stat(requestedDigest(call.request.digest), signal);
      }),
      read: streamHandler('read', context, (call: ServerWritableStream<ReadRequest, Buffer>, s) => {
        this.#roles.require('read', call);
        return this.#reads.send(call.request, frameSinkOf(call), s);
      }),
      resolve: unaryHandler(
        'resolve',
        context,
        async (call: ServerUnaryCall<ResolveRequest, unknown>, signal) => {
          this.#roles.require('resolve', call);
          const known = await this.#content.resolve(call.request.name, { signal });
          const { registrySeen } = known;
          return create(ResolveResponseSchema, {
            tags: known.tags.map(tagToMessage),
            registrySeen,
          });
        },
      ),
      list: streamHandler(
        'list',
        context,
        (call: ServerWritableStream<ListRequest, ListResponse>, s) => {
          this.#roles.require('list', call);
          return this.#listing(call, s, (signal) => this.#list(call, signal));
        },
      ),
      inventory: streamHandler(
        'inventory',
        context,
        (call: ServerWritableStream<InventoryRequest, InventoryResponse>, s) => {
          this.#roles.require('inventory', call);
          return this.#listing(call, s, (signal) => this.#inventory(call, signal));
        },
      ),
      reach: unaryHandler(
        'reach',
        context,
        async (call: ServerUnaryCall<ReachRequest, unknown>, signal) => {
          this.#roles.require('reach', call);
          const nodes = call.request.nodes.slice(0, MAX_REACHED);
          return this.#listing(call, signal, async (limited) =>
            reachToMessage(await this.#reach.look(nodes, { signal: limited })),
          );
        },
      ),
      reportCorrupt: unaryHandler(
        'reportCorrupt',
        context,
        async (call: ServerUnaryCall<ReportCorruptRequest, unknown>) => {
          this.#roles.require('reportCorrupt', call);
          const host = hostOf(call);
          await this.#content.reportCorrupt(requestedDigest(call.request.digest), { host });
          return create(ReportCorruptResponseSchema);
        },
      ),
    };
  }

  /** Connections over which nothing is read but blobs. */
  connections(options: Partial<BlobConnectionOptions> = {}): BlobConnections {
    return new BlobConnections(options, {
      ...this.#context,
      send: async (request, caller, sink, signal) => {
        this.#roles.require('read', caller);
        await this.#reads.send(request, sink, signal);
      },
    });
  }

  async #stat(digest: Digest, signal: AbortSignal): Promise<unknown> {
    const held = await this.#content.stat(digest, { signal });
    return create(StatResponseSchema, {
      held: held !== undefined,
      sizeBytes: BigInt(held?.sizeBytes ?? 0),
      verified: held?.verified ?? false,
      busy: this.#reads.isBusy,
    });
  }

  /** Runs what looks at everything: few at a time, and not for ever. */
  async #listing<T>(
    call: { getPeer(): string },
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const host = hostOf(call);
    const done = this.#listings.take(host);
    if (done === undefined) {
      throw new RpcFailure(status.RESOURCE_EXHAUSTED, `too many lists at once for ${host}`);
    }
    const { listingMs = LISTING_MS } = this.#options;
    const late = new AbortController();
    const timer = setTimeout(() => {
      late.abort(new RpcFailure(status.ABORTED, `not taken within ${listingMs} ms`));
    }, listingMs);
    try {
      return await run(AbortSignal.any([signal, late.signal]));
    } finally {
      clearTimeout(timer);
      done();
    }
  }

  async #inventory(
    call: ServerWritableStream<InventoryRequest, InventoryResponse>,
    signal: AbortSignal,
  ): Promise<void> {
    const limits = { stallMs: this.#options.readerStallMs, signal };
    const messages = inventoryMessages(await this.#inventories.current());
    for (const message of messages) await writeTo(call, message, limits);
  }

  async #list(
    call: ServerWritableStream<ListRequest, ListResponse>,
    signal: AbortSignal,
  ): Promise<void> {
    const limits = { stallMs: this.#options.readerStallMs, signal };
    const send = (message: ListResponse): Promise<void> => writeTo(call, message, limits);
    let blobs: ReturnType<typeof create<typeof HeldBlobSchema>>[] = [];
    for await (const { digest, sizeBytes } of this.#content.blobs({ signal })) {
      blobs.push(create(HeldBlobSchema, { digest, sizeBytes: BigInt(sizeBytes) }));
      if (blobs.length < LIST_BATCH) continue;
      await send(create(ListResponseSchema, { blobs }));
      blobs = [];
    }
    let names: ReturnType<typeof create<typeof HeldNameSchema>>[] = [];
    for await (const record of this.#content.names({ signal })) {
      names.push(create(HeldNameSchema, { name: record.name, tag: tagToMessage(record) }));
      if (names.length < LIST_BATCH) continue;
      await send(create(ListResponseSchema, { names }));
      names = [];
    }
    await send(create(ListResponseSchema, { blobs, names }));
  }
}

function frameSinkOf(call: ServerWritableStream<ReadRequest, Buffer>): FrameSink {
  return {
    encode: encodeReadFrame,
    write: (frame, onWritten) => {
      // grpc-js makes copies.
      notePassedBytes(frame.length);
      call.write(frame, onWritten);
    },
  };
}
