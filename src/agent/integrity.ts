import { LRUCache } from 'lru-cache';

import type { Digest } from '../oci/digest.ts';
import { DigestVerifier } from '../oci/verifier.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { BytePace } from './byte-pace.ts';
import type { BlobInfo, ContentStore, OpenBlob } from './store.ts';

/** What hashing has said of the bytes that a fingerprint stands for. */
export type IntegrityState = 'verified' | 'unverified' | 'corrupt';

/** What hashing a blob has come to. */
export type Finding = 'verified' | 'corrupt' | 'missing';

export interface IntegrityOptions {
  /** How fast the background hashing reads, at most. */
  readonly bytesPerSecond?: number;
  /** How many blobs' results are remembered. */
  readonly maxRecords?: number;
  /** How long after one look over the whole store the next begins. */
  readonly sweepIntervalMs?: number;
}

export interface IntegrityDependencies {
  readonly store: Pick<ContentStore, 'stat' | 'open' | 'blobs'>;
  readonly log: Pick<Logger, 'debug' | 'warn' | 'error'>;
  readonly clock: Clock;
  /** Told once for each finding. What it throws is logged. */
  readonly onCorrupt?: (info: BlobInfo) => void | Promise<void>;
}

interface IntegrityRecord {
  readonly fingerprint: string;
  readonly state: 'verified' | 'corrupt';
}

const defaultBytesPerSecond = 64 * 1024 * 1024;
const defaultMaxRecords = 65_536;
const defaultSweepIntervalMs = 60_000;
/** Small, since hashing a chunk holds up the event loop. */
const chunkBytes = 256 * 1024;
const maxQueued = 4096;
const maxRechecks = 64;

/**
 * Who wants a blob hashed at once: this node itself, or others, for the first time or again. Each kind
 * waits for its own alone. What others want again is hashed at the pace of the background.
 */
type RecheckKind = 'own' | 'first' | 'again';

/** Blobs to be hashed again, one after the other. */
class RecheckQueue {
  readonly byDigest = new Map<Digest, Promise<Finding>>();
  last: Promise<unknown> = Promise.resolve();
}

/**
 * Hashes what the store holds, once for each fingerprint, in the background: one blob at a time,
 * at a limited rate, and never while bytes are served from it.
 */
export class Integrity {
  readonly #store: IntegrityDependencies['store'];
  readonly #log: IntegrityDependencies['log'];
  readonly #clock: Clock;
  readonly #onCorrupt: IntegrityDependencies['onCorrupt'];
  readonly #pace: BytePace;
  readonly #sweepIntervalMs: number;
  readonly #maxRecords: number;
  readonly #records: LRUCache<Digest, IntegrityRecord>;
  readonly #queue = new Set<Digest>();
  readonly #rechecks: Readonly<Record<RecheckKind, RecheckQueue>> = {
    own: new RecheckQueue(),
    first: new RecheckQueue(),
    again: new RecheckQueue(),
  };
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;
  #wake = new AbortController();

  constructor(options: IntegrityOptions, dependencies: IntegrityDependencies) {
    this.#store = dependencies.store;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock;
    this.#onCorrupt = dependencies.onCorrupt;
    this.#pace = new BytePace(
      { bytesPerSecond: options.bytesPerSecond ?? defaultBytesPerSecond },
      dependencies,
    );
    this.#sweepIntervalMs = options.sweepIntervalMs ?? defaultSweepIntervalMs;
    // With max it would take the memory of all of them at once.
    this.#maxRecords = options.maxRecords ?? defaultMaxRecords;
    this.#records = new LRUCache({ maxSize: this.#maxRecords, sizeCalculation: () => 1 });
  }

  /** What is known of exactly these bytes. */
  stateOf(info: BlobInfo): IntegrityState {
    const record = this.#records.get(info.digest);
    return record?.fingerprint === info.fingerprint ? record.state : 'unverified';
  }

  /** Asks for a blob to be hashed soon. When too many wait already, the next sweep finds it. */
  request(digest: Digest): void {
    if (this.#queue.size >= maxQueued || this.#hasStopped()) return;
    this.#queue.add(digest);
    this.#wake.abort();
  }

  /**
   * Hashes a blob at once, whatever is known of it, which stands until then. Several at the same
   * time take turns; the same one is hashed once for all who ask.
   *
   * @throws StoreUnavailableError when the store cannot be read, and an error when too many wait
   */
  recheck(digest: Digest): Promise<Finding> {
    return this.#recheck(digest, 'own');
  }

  /**
   * The same for others: at full speed when these bytes were never hashed, which has to be done
   * once anyhow, else at the pace of the background.
   *
   * @throws as above
   */
  async recheckForOthers(digest: Digest): Promise<Finding> {
    const info = await this.#store.stat(digest, { signal: this.#stopped.signal });
    if (info === undefined) return 'missing';
    return this.#recheck(digest, this.stateOf(info) === 'unverified' ? 'first' : 'again');
  }

  #recheck(digest: Digest, kind: RecheckKind): Promise<Finding> {
    const queue = this.#rechecks[kind];
    const running = queue.byDigest.get(digest);
    if (running !== undefined) return running;
    if (queue.byDigest.size >= maxRechecks) {
      return Promise.reject(new Error(`Cannot hash ${digest} again: too many others wait`));
    }
    const recheck = queue.last
      .then(() => this.#hash(digest, { paced: kind === 'again' }))
      .finally(() => queue.byDigest.delete(digest));
    queue.byDigest.set(digest, recheck);
    queue.last = recheck.catch(() => undefined);
    return recheck;
  }

  /** Begins to hash what was requested, and to look over the whole store from time to time. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends all hashing. When it resolves, no file is open and no timer left. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#queue.clear();
    await this.#running;
    await Promise.all(Object.values(this.#rechecks).map(({ last }) => last));
  }

  #hasStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  async #run(): Promise<void> {
    while (!this.#hasStopped()) {
      try {
        await this.#sweep();
      } catch (error) {
        if (!this.#stopped.signal.aborted)
          this.#log.warn({ err: error }, 'Cannot look over the store');
      }
      await this.#serveRequestsFor(this.#sweepIntervalMs);
    }
  }

  /** Hashes what has no record yet; requests come first. */
  async #sweep(): Promise<void> {
    const { signal } = this.#stopped;
    // Listed to the end before the slow part begins: an open listing holds resources of the store.
    const pending: Digest[] = [];
    for await (const info of this.#store.blobs({ signal })) {
      if (this.stateOf(info) === 'unverified') pending.push(info.digest);
      if (pending.length >= this.#maxRecords) break;
    }
    for (const digest of pending) {
      if (this.#hasStopped()) return;
      await this.#serveRequests();
      await this.#checkUnlessKnown(digest);
    }
  }

  async #serveRequestsFor(durationMs: number): Promise<void> {
    const stopped = this.#stopped.signal;
    const endMs = this.#clock.now() + durationMs;
    for (;;) {
      await this.#serveRequests();
      // Bounded on both sides, in case the machine's time is set meanwhile.
      const remainingMs = Math.min(endMs - this.#clock.now(), durationMs);
      if (this.#hasStopped() || remainingMs <= 0) return;
      this.#wake = new AbortController();
      // What was requested a moment ago aborted the one before.
      if (this.#queue.size > 0) continue;
      const signal = AbortSignal.any([stopped, this.#wake.signal]);
      try {
        await this.#clock.sleep(remainingMs, { signal });
      } catch {
        // Woken by a request or by the stop.
      }
    }
  }

  async #serveRequests(): Promise<void> {
    for (const digest of this.#queue) {
      if (this.#hasStopped()) return;
      this.#queue.delete(digest);
      await this.#checkUnlessKnown(digest);
    }
  }

  async #checkUnlessKnown(digest: Digest): Promise<void> {
    const { signal } = this.#stopped;
    try {
      const info = await this.#store.stat(digest, { signal });
      if (info === undefined || this.stateOf(info) !== 'unverified') return;
      await this.#hash(digest, { paced: true });
    } catch (error) {
      if (!this.#hasStopped()) this.#log.debug({ err: error, digest }, 'Cannot hash a blob');
    }
  }

  async #hash(digest: Digest, { paced }: { paced: boolean }): Promise<Finding> {
    const { signal } = this.#stopped;
    signal.throwIfAborted();
    const blob = await this.#store.open(digest, { signal });
    if (blob === undefined) return 'missing';
    try {
      const matches = await this.#matches(blob, paced);
      const state = matches ? 'verified' : 'corrupt';
      const { sizeBytes, fingerprint } = blob;
      this.#records.set(digest, { fingerprint, state });
      if (!matches) await this.#report({ digest, sizeBytes, fingerprint });
      return state;
    } finally {
      await blob.close();
    }
  }

  async #matches(blob: OpenBlob, paced: boolean): Promise<boolean> {
    const verifier = new DigestVerifier(blob.digest);
    const chunk = Buffer.allocUnsafe(Math.min(chunkBytes, Math.max(blob.sizeBytes, 1)));
    for (;;) {
      this.#stopped.signal.throwIfAborted();
      const readBytes = await blob.read(chunk, verifier.receivedBytes);
      if (readBytes === 0) break;
      verifier.update(chunk.subarray(0, readBytes));
      if (paced) await this.#pace.take(readBytes, { signal: this.#stopped.signal });
    }
    return verifier.matches();
  }

  async #report(info: BlobInfo): Promise<void> {
    this.#log.error(
      { digest: info.digest, sizeBytes: info.sizeBytes },
      'The bytes on disk are not those that the digest names; they are not served',
    );
    try {
      await this.#onCorrupt?.(info);
    } catch (error) {
      this.#log.error({ err: error, digest: info.digest }, 'Cannot act on corrupt bytes');
    }
  }
}
