import { Registry } from 'prom-client';
import { createAgentMetrics } from '../../src/agent/agent-metrics.ts';
import type { CallLimitOptions } from '../../src/agent/call-limits.ts';
import { AgentServer } from '../../src/agent/agent-server.ts';
import { HeldContent } from '../../src/agent/held-content.ts';
import { Inventories } from '../../src/agent/inventory/inventories.ts';
import type { StoreSurvey, SurveyedStore } from '../../src/agent/inventory/survey.ts';
import type { KeepNotice } from '../../src/agent/keeper/image-keeper.ts';
import { LocalService } from '../../src/agent/local-service.ts';
import { Observations } from '../../src/agent/observations.ts';
import type { BlobConnectionOptions } from '../../src/agent/blob-connections.ts';
import { PEER_ROLES } from '../../src/agent/caller-roles.ts';
import { PeerService } from '../../src/agent/peer-service.ts';
import { Reach } from '../../src/agent/reach.ts';
import { RefusedConnections } from '../../src/agent/refused-connections.ts';
import { RegistryWatch } from '../../src/agent/registry-watch.ts';
import type { BlobInfo, ContentStore, OpenBlob } from '../../src/agent/store.ts';
import { Locator } from '../../src/discovery/locate.ts';
import type { Member } from '../../src/discovery/membership.ts';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import type { Identity } from '../../src/rpc/identity.ts';
import { ServerIdentity } from '../../src/rpc/server-identity.ts';
import type { ProofSummary } from '../../src/rpc/proof-summary.ts';
import { systemClock } from '../../src/telemetry/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { credentials, type ChannelCredentials } from '@grpc/grpc-js';

/** What a proof came to. */
export const PROOF: ProofSummary = {
  endedAtMs: 1_700_000_000_123,
  tookMs: 1500,
  isComplete: true,
  images: 12,
  servable: 9,
  differences: 1,
  bytes: 123_456,
};

export const CHUNK_BYTES = 64 * 1024;
export const WINDOW_BYTES = 256 * 1024;

/** A blob whose bytes are made when they are read. */
export interface MadeBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Bytes read of it so far, over all readers. */
  readBytes: number;
  opened: number;
  closed: number;
}

/** What a made blob has at a position: no two stretches of 251 bytes in a row are the same. */
export function madeByte(position: number): number {
  return (position + Math.floor(position / 251)) % 251;
}

/** A store of blobs that take no room; it counts what is done to it. */
export class MadeStore implements ContentStore, SurveyedStore {
  readonly kind = 'made';
  readonly aborted: Digest[] = [];
  readonly #blobs = new Map<Digest, MadeBlob>();

  /** @returns a blob of {@link madeByte}s; its digest is not that of them */
  add(sizeBytes: number): MadeBlob {
    const digest = digestOf(Buffer.from(`blob ${this.#blobs.size}`));
    const blob = { digest, sizeBytes, readBytes: 0, opened: 0, closed: 0 };
    this.#blobs.set(digest, blob);
    return blob;
  }

  async stat(digest: Digest): Promise<BlobInfo | undefined> {
    const blob = this.#blobs.get(digest);
    return blob && { digest, sizeBytes: blob.sizeBytes, fingerprint: '1' };
  }

  async open(digest: Digest): Promise<OpenBlob | undefined> {
    const blob = this.#blobs.get(digest);
    if (blob === undefined) return undefined;
    blob.opened += 1;
    return {
      digest,
      sizeBytes: blob.sizeBytes,
      fingerprint: '1',
      read: async (target, position) => {
        const count = Math.min(target.length, blob.sizeBytes - position);
        for (let n = 0; n < count; n += 1) target[n] = madeByte(position + n);
        blob.readBytes += count;
        return count;
      },
      close: async () => {
        blob.closed += 1;
      },
    };
  }

  async resolve(name: string) {
    const [digest] = this.#blobs.keys();
    return digest === undefined || !name.endsWith(':held')
      ? undefined
      : { name, digest, mediaType: 'a/b', sizeBytes: 1, recordedAtMs: 1000 };
  }

  async *blobs() {
    for (const { digest, sizeBytes } of this.#blobs.values()) {
      yield { digest, sizeBytes, fingerprint: '1' };
    }
  }

  async *names() {
    const tag = await this.resolve('registry.test/a:held');
    if (tag !== undefined) yield tag;
  }

  async survey(): Promise<StoreSurvey> {
    const tag = await this.resolve('registry.test/a:held');
    return {
      images: tag === undefined ? [] : [{ ...tag, target: tag }],
      usedImages: new Set(),
      kept: 'everything',
      labels: new Map(),
      runtimeVersion: '1',
      snapshotter: '',
      warnings: [],
    };
  }

  async abortIngest(digest: Digest): Promise<number> {
    this.aborted.push(digest);
    return 1;
  }

  async ready(): Promise<boolean> {
    return true;
  }

  async close(): Promise<void> {
    // Nothing is open that its reader does not close.
  }
}

/** The listeners of one agent over a made store: mutual TLS, and a unix socket. */
export class AgentScene implements AsyncDisposable {
  readonly store = new MadeStore();
  readonly metrics = createAgentMetrics(new Registry());
  readonly readers = { count: 0 };
  /** Processes that were watched, and those that were ended. */
  /** What it was told that proofs came to. */
  readonly proofs: ProofSummary[] = [];
  readonly watched: number[] = [];
  readonly killed: number[] = [];
  readonly rechecked: Digest[] = [];
  readonly notices: KeepNotice[] = [];
  readonly logged: string[] = [];
  readonly socket: string;
  port = 0;
  readonly #peers: AgentServer;
  readonly #local: AgentServer;
  readonly #clients: AgentClient[] = [];
  /** Members beside this node, which is in the zone z1: for lookups, they answer as it does. */
  readonly others: Member[] = [];

  private constructor(options: {
    maxReaders: number;
    socket: string;
    maxConnections?: number;
    maxHandshakes?: number;
    calls?: CallLimitOptions;
    listingMs?: number;
    readerStallMs?: number;
    blobs?: Partial<BlobConnectionOptions> | 'older';
    kill?: (pid: number) => void;
  }) {
    this.socket = options.socket;
    const log = {
      ...silentLogger,
      error: (_: unknown, message: string) => void this.logged.push(message),
    };
    const { metrics } = this;
    const observations = new Observations({ maxNames: 100 });
    const content = new HeldContent({
      store: this.store,
      integrity: {
        stateOf: () => 'verified',
        request: () => undefined,
      },
      reports: {
        add: async (digest) => {
          this.rechecked.push(digest);
          return 'verified';
        },
      },
      observations,
    });
    const peerOptions = {
      maxReaders: options.maxReaders,
      chunkBytes: CHUNK_BYTES,
      readerStallMs: options.readerStallMs ?? 60_000,
      ...(options.listingMs === undefined ? {} : { listingMs: options.listingMs, maxListings: 12 }),
    };
    const integrity = { stateOf: () => 'verified' as const, request: () => undefined };
    const inventories = new Inventories(
      { node: 'me' },
      { store: this.store, integrity, observations, clock: systemClock },
    );
    const reach = new Reach(
      { selfName: 'me' },
      {
        membership: { members: () => [{ name: 'gone', address: '127.0.0.1:9' }] },
        ask: async () => {
          throw new Error('Cannot ask gone');
        },
        pulls: () => ({ seen: 3, bypassed: 1, unknown: 0, examples: [] }),
        clock: systemClock,
      },
    );
    const peerParts = { content, metrics, log, readers: this.readers, inventories, reach };
    const serverOptions = {
      windowBytes: WINDOW_BYTES,
      maxConcurrentStreams: 100,
      maxConnections: options.maxConnections ?? 100,
      maxHandshakes: options.maxHandshakes ?? 100,
      ...(options.calls === undefined ? {} : { calls: options.calls }),
    };
    const { blobs = {} } = options;
    const peerService = new PeerService({ ...peerOptions, allowedRoles: PEER_ROLES }, peerParts);
    this.#peers = new AgentServer(serverOptions, {
      peer: peerService.implementation(),
      ...(blobs === 'older' ? {} : { blobs: peerService.connections(blobs) }),
    });
    const locator = new Locator(
      { self: { name: 'me', address: '' }, memberTimeoutMs: 1000, maxMembersAsked: 4 },
      {
        membership: { members: () => this.others, zone: 'z1' },
        ask: async (_, key, limits) => {
          if ('name' in key) {
            const { tags, registrySeen } = await content.resolve(key.name, limits);
            return { sizeBytes: 0, verified: false, busy: false, tags, registrySeen };
          }
          const held = await content.stat(key.digest, limits);
          return held && { ...held, busy: false, tags: [], registrySeen: false };
        },
        connect: async () => true,
        log,
      },
    );
    const watch = new RegistryWatch({
      log,
      kill: (pid) => {
        this.killed.push(pid);
        options.kill?.(pid);
      },
      onEnded: () => undefined,
    });
    this.#local = new AgentServer(serverOptions, {
      peer: new PeerService(peerOptions, peerParts).implementation(),
      local: new LocalService({
        locator,
        observations,
        store: this.store,
        watch: {
          start: (terms) => {
            this.watched.push(terms.pid);
            return watch.start(terms);
          },
        },
        keeper: {
          keep: async (notice) => {
            this.notices.push(notice);
            return 3;
          },
        },
        proofs: { record: async (proof) => void this.proofs.push(proof) },
        log,
        metrics,
      }).implementation(),
    });
  }

  static async start(options: {
    readonly identity: Identity;
    readonly socket: string;
    readonly maxReaders?: number;
    readonly maxConnections?: number;
    readonly maxHandshakes?: number;
    readonly calls?: CallLimitOptions;
    /** For lists to be taken, milliseconds; a host may have three at a time then. */
    readonly listingMs?: number;
    /** A reader that takes nothing for so long loses its place, milliseconds. */
    readonly readerStallMs?: number;
    /** Bounds of connections for blobs; "older": it knows none. */
    readonly blobs?: Partial<BlobConnectionOptions> | 'older';
    /** For TLS, milliseconds. */
    readonly handshakeMs?: number;
    readonly kill?: (pid: number) => void;
  }): Promise<AgentScene> {
    const scene = new AgentScene({ maxReaders: 10, ...options });
    await scene.#local.listenUnix(options.socket);
    scene.port = await scene.#peers.listen('127.0.0.1:0', {
      identity: new ServerIdentity(options.identity),
      ...(options.handshakeMs === undefined ? {} : { handshakeMs: options.handshakeMs }),
      refused: new RefusedConnections({ log: silentLogger, metrics: scene.metrics }),
    });
    return scene;
  }

  /** A client over mutual TLS. */
  peer(channel: ChannelCredentials): AgentClient {
    return this.#client(`127.0.0.1:${this.port}`, channel);
  }

  /** A client over the unix socket. */
  local(): AgentClient {
    return this.#client(`unix:${this.socket}`, credentials.createInsecure());
  }

  /** Has the listener for other nodes end as it does when the process is told to. */
  async drain(): Promise<void> {
    await this.#peers.close({ signal: new AbortController().signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    const signal = AbortSignal.abort();
    await Promise.all([this.#peers.close({ signal }), this.#local.close({ signal })]);
  }

  #client(target: string, channel: ChannelCredentials): AgentClient {
    const client = new AgentClient(
      { target, name: 'node-1', windowBytes: WINDOW_BYTES },
      { credentials: channel },
    );
    this.#clients.push(client);
    return client;
  }
}
