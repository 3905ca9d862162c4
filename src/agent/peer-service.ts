import { create } from '@bufbuild/protobuf';
import {
  status,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Digest } from '../oci/digest.ts';
import { parseDigest } from '../oci/digest.ts';
import { safeNumber, tagToMessage } from '../rpc/agent-protocol.ts';
import { inventoryMessages } from '../rpc/inventory-messages.ts';
import { reachToMessage } from '../rpc/node-reach.ts';
import { rolesOf, type Role } from '../rpc/identity.ts';
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
import { Seldom } from '../telemetry/seldom.ts';
import type { AgentMetrics } from './agent-metrics.ts';
import { sendBlob, writeTo } from './blob-sender.ts';
import type { HeldContent } from './held-content.ts';
import { HostShare, hostOf } from './host-share.ts';
import type { Inventories } from './inventory/inventories.ts';
import type { Reach } from './reach.ts';
import { RpcFailure } from './rpc-failure.ts';
import { streamHandler, unaryHandler, type HandlerContext } from './rpc-handlers.ts';

export interface PeerServiceOptions {
  /** How many blobs may be read at once. */
  readonly maxReaders: number;
  /** Bytes of a blob in one message. */
  readonly chunkBytes: number;
  /** A reader that takes no message for this long loses its place, milliseconds. */
  readonly readerStallMs: number;
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

export type PeerMethod =
  'stat' | 'read' | 'resolve' | 'list' | 'reportCorrupt' | 'inventory' | 'reach';

/** What other nodes' processes may call over mutual TLS. */
export const PEER_ROLES: Readonly<Record<PeerMethod, readonly Role[]>> = {
  stat: ['agent', 'registry'],
  read: ['agent', 'registry'],
  resolve: ['agent'],
  list: ['agent'],
  reportCorrupt: ['agent', 'registry'],
  inventory: ['agent'],
  reach: ['agent'],
};

const LIST_BATCH = 500;
const MAX_REACHED = 4096;
const LISTING_MS = 60_000;
const MAX_LISTINGS = 64;

/** Serves what this node holds to other nodes. */
export class PeerService {
  readonly #options: PeerServiceOptions;
  readonly #content: HeldContent;
  readonly #metrics: AgentMetrics;
  readonly #context: HandlerContext;
  readonly #readers: ReaderCount;
  readonly #inventories: Pick<Inventories, 'current'>;
  readonly #reach: Pick<Reach, 'look'>;
  readonly #listings: HostShare;
  readonly #seldom = new Seldom({ intervalMs: 60_000, maxKeys: 1000 });

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
    this.#metrics = dependencies.metrics;
    this.#readers = dependencies.readers;
    this.#inventories = dependencies.inventories;
    this.#reach = dependencies.reach;
    this.#context = { log: dependencies.log, metrics: dependencies.metrics };
  }

  /** The handlers for a grpc-js server. */
  implementation(): UntypedServiceImplementation {
    const context = this.#context;
    return {
      stat: unaryHandler('stat', context, (call: ServerUnaryCall<StatRequest, unknown>, signal) => {
        this.#authorize('stat', call);
        return this.#stat(digestOf(call.request.digest), signal);
      }),
      read: streamHandler('read', context, (call: ServerWritableStream<ReadRequest, Buffer>, s) => {
        this.#authorize('read', call);
        return this.#read(call, s);
      }),
      resolve: unaryHandler(
        'resolve',
        context,
        async (call: ServerUnaryCall<ResolveRequest, unknown>, signal) => {
          this.#authorize('resolve', call);
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
          this.#authorize('list', call);
          return this.#listing(call, s, (signal) => this.#list(call, signal));
        },
      ),
      inventory: streamHandler(
        'inventory',
        context,
        (call: ServerWritableStream<InventoryRequest, InventoryResponse>, s) => {
          this.#authorize('inventory', call);
          return this.#listing(call, s, (signal) => this.#inventory(call, signal));
        },
      ),
      reach: unaryHandler(
        'reach',
        context,
        async (call: ServerUnaryCall<ReachRequest, unknown>, signal) => {
          this.#authorize('reach', call);
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
          this.#authorize('reportCorrupt', call);
          const host = hostOf(call);
          await this.#content.reportCorrupt(digestOf(call.request.digest), { host });
          return create(ReportCorruptResponseSchema);
        },
      ),
    };
  }

  #authorize(
    method: PeerMethod,
    call: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>,
  ): void {
    const allowed = this.#options.allowedRoles?.[method];
    if (allowed === undefined) return;
    const roles = rolesOf(call.getAuthContext().sslPeerCertificate);
    if (allowed.some((role) => roles.has(role))) return;
    const remote = call.getPeer();
    const host = hostOf(call);
    const named = [...roles].join(' and ') || 'none';
    const why = `it is for the role ${allowed.join(' or ')}, and the certificate names ${named}`;
    if (this.#seldom.isDue(`${method} ${host} ${named}`)) {
      this.#context.log.warn({ method, remote, why }, 'refused a call of another node');
    }
    const message = `${method} is not for this certificate's role: ${why}`;
    throw new RpcFailure(status.PERMISSION_DENIED, message);
  }

  async #stat(digest: Digest, signal: AbortSignal): Promise<unknown> {
    const held = await this.#content.stat(digest, { signal });
    return create(StatResponseSchema, {
      held: held !== undefined,
      sizeBytes: BigInt(held?.sizeBytes ?? 0),
      verified: held?.verified ?? false,
      busy: this.#readers.count >= this.#options.maxReaders,
    });
  }

  async #read(call: ServerWritableStream<ReadRequest, Buffer>, signal: AbortSignal): Promise<void> {
    const { request } = call;
    const part = {
      offsetBytes: positionOf(request.offsetBytes),
      lengthBytes: positionOf(request.lengthBytes),
    };
    if (this.#readers.count >= this.#options.maxReaders) {
      throw new RpcFailure(status.RESOURCE_EXHAUSTED, 'too many readers');
    }
    this.#readers.count += 1;
    this.#metrics.readers.inc();
    try {
      const opened = await this.#content.open(digestOf(request.digest), { signal });
      if (opened === undefined) throw new RpcFailure(status.NOT_FOUND, 'not held');
      try {
        const { chunkBytes, readerStallMs: stallMs } = this.#options;
        const sent = await sendBlob(call, opened, { ...part, chunkBytes, stallMs, signal });
        this.#metrics.bytesSent.inc(sent);
      } finally {
        await opened.blob.close();
      }
    } finally {
      this.#readers.count -= 1;
      this.#metrics.readers.dec();
    }
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

/** How many blobs are being read, over all the servers of one agent. */
export interface ReaderCount {
  count: number;
}

function positionOf(value: bigint): number {
  try {
    return safeNumber(value);
  } catch (error) {
    throw new RpcFailure(status.INVALID_ARGUMENT, 'a position out of range', { cause: error });
  }
}

function digestOf(text: string): Digest {
  const digest = parseDigest(text);
  if (digest.ok) return digest.value;
  throw new RpcFailure(status.INVALID_ARGUMENT, digest.reason);
}
