import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { BlobFiles } from '../blob-files.ts';
import type { StoreSurvey, SurveyedStore } from '../inventory/survey.ts';
import { StoreUnavailableError } from '../store.ts';
import type {
  BlobInfo,
  ContentStore,
  NamedDescriptor,
  OpenBlob,
  StoreCallOptions,
} from '../store.ts';
import { BlobRoom } from './blob-room.ts';
import { BlobFileWriter } from './blob-writer.ts';
import type { BlobWriter } from './blob-writer.ts';
import { isTagName, LayoutIndex } from './layout-index.ts';

export interface DirectoryStoreOptions {
  readonly path: string;
  /** Of all blobs together, those that are being written included. */
  readonly maxSizeBytes: number;
  readonly maxBlobs?: number;
  readonly maxNames?: number;
  /** How many blobs may be written at a time. */
  readonly maxWriters?: number;
}

export interface DirectoryStoreDependencies {
  readonly log: Pick<Logger, 'debug' | 'warn'>;
  /** Milliseconds since the epoch; the machine's clock where left out. */
  readonly now?: () => number;
}

/** What the upstream said that a name points at. */
export interface TagObservation {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** When, by the upstream's own clock, in milliseconds since the epoch. */
  readonly observedAtMs: number;
}

/** The last moment that a Date can hold. */
const maxDateMs = 8.64e15;
const defaultMaxBlobs = 100_000;
const defaultMaxNames = 4096;
const defaultMaxWriters = 64;

/**
 * A directory in the OCI image layout (OCI image specification 1.1, image-layout.md) that keeps
 * blobs up to a bound: the ones used longest ago make room for new ones.
 */
export class DirectoryStore implements ContentStore, SurveyedStore {
  readonly kind = 'directory';
  readonly #path: string;
  readonly #options: Required<DirectoryStoreOptions>;
  readonly #log: DirectoryStoreDependencies['log'];
  readonly #now: () => number;
  readonly #files: BlobFiles;
  readonly #index: LayoutIndex;
  readonly #room: BlobRoom;
  readonly #writers = new Set<BlobFileWriter>();
  /** Writers that are being opened. */
  #opening = 0;
  #closed = false;

  private constructor(
    options: Required<DirectoryStoreOptions>,
    dependencies: DirectoryStoreDependencies & { readonly now: () => number },
    index: LayoutIndex,
  ) {
    this.#path = options.path;
    this.#options = options;
    this.#log = dependencies.log;
    this.#now = dependencies.now;
    this.#files = new BlobFiles(options.path);
    this.#index = index;
    this.#room = new BlobRoom(options, {
      files: this.#files,
      onEvicted: (digests) => this.#dropNamesOf(digests),
      log: dependencies.log,
    });
  }

  /**
   * Opens the layout in a directory, or makes one. What an earlier process left half written is
   * removed, and so is what exceeds the bound. Only one process may have a directory open.
   *
   * @throws StoreUnavailableError when the directory cannot be made, read or written
   */
  static async open(
    options: DirectoryStoreOptions,
    dependencies: DirectoryStoreDependencies,
  ): Promise<DirectoryStore> {
    const limits = {
      maxBlobs: defaultMaxBlobs,
      maxNames: defaultMaxNames,
      maxWriters: defaultMaxWriters,
      ...options,
    };
    const { log, now = Date.now } = dependencies;
    try {
      await prepareLayout(limits.path);
      const index = await LayoutIndex.open(limits, { log, now });
      const store = new DirectoryStore(limits, { log, now }, index);
      await store.#takeStock();
      return store;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StoreUnavailableError(`Cannot open the store ${options.path}: ${reason}`, {
        cause: error,
      });
    }
  }

  async stat(digest: Digest, options: StoreCallOptions = {}): Promise<BlobInfo | undefined> {
    this.#requireOpen(options);
    return this.#room.use(digest, () => this.#files.stat(digest));
  }

  async open(digest: Digest, options: StoreCallOptions = {}): Promise<OpenBlob | undefined> {
    this.#requireOpen(options);
    return this.#room.use(digest, () => this.#files.open(digest));
  }

  async resolve(
    name: string,
    options: StoreCallOptions = {},
  ): Promise<NamedDescriptor | undefined> {
    this.#requireOpen(options);
    const entry = this.#index.get(name);
    return entry !== undefined && (await this.#isHeld(entry)) ? entry : undefined;
  }

  async *blobs(options: StoreCallOptions = {}): AsyncGenerator<BlobInfo> {
    this.#requireOpen(options);
    yield* this.#files.list(options);
  }

  async *names(options: StoreCallOptions = {}): AsyncGenerator<NamedDescriptor> {
    for (const entry of this.#index.list()) {
      this.#requireOpen(options);
      if (await this.#isHeld(entry)) yield entry;
    }
  }

  /** Names are all there is: blobs go when room is needed, not when nothing refers to them. */
  async survey(options: StoreCallOptions = {}): Promise<StoreSurvey> {
    this.#requireOpen(options);
    const images = this.#index.list().map((entry) => {
      const { name, digest, mediaType, sizeBytes, recordedAtMs, observedAtMs } = entry;
      const target = { digest, mediaType, sizeBytes };
      const observed = observedAtMs === undefined ? {} : { observedAtMs };
      return { name, target, recordedAtMs, ...observed };
    });
    return {
      images,
      usedImages: new Set(),
      kept: 'everything',
      labels: new Map(),
      runtimeVersion: '',
      snapshotter: '',
      warnings: [],
    };
  }

  async abortIngest(digest: Digest, options: StoreCallOptions = {}): Promise<number> {
    this.#requireOpen(options);
    const writers = [...this.#writers].filter((writer) => writer.digest === digest);
    await Promise.all(writers.map((writer) => writer.abort()));
    return writers.length;
  }

  async ready(): Promise<boolean> {
    if (this.#closed) return false;
    try {
      await access(join(this.#path, 'ingest'), constants.W_OK);
      return true;
    } catch {
      return false;
    }
  }

  /** Aborts unfinished writes. Blobs that are open stay readable. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#writers].map((writer) => writer.abort()));
    await this.#room.settled();
    await this.#index.settled();
  }

  /**
   * Begins to receive a blob.
   *
   * @param options.replaces the one that is held, if any, is wrong; it stays until the new one is
   *   complete
   * @returns undefined when there is no need (it is held already) or no room (it is larger than the
   *   bound, or too many others are being written)
   * @throws StoreUnavailableError when the directory cannot be written
   */
  async createWriter(
    digest: Digest,
    options: { readonly sizeBytes?: number; readonly replaces?: boolean } = {},
  ): Promise<BlobWriter | undefined> {
    this.#requireOpen({});
    const { maxSizeBytes, maxWriters } = this.#options;
    const fits = (options.sizeBytes ?? 0) <= maxSizeBytes;
    if (!fits || this.#writers.size + this.#opening >= maxWriters) return undefined;
    this.#opening += 1;
    try {
      if (options.replaces !== true && (await this.stat(digest)) !== undefined) return undefined;
      return await this.#openWriter(digest, options);
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new StoreUnavailableError(`Cannot write ${digest}: ${reason}`, { cause: error });
    } finally {
      this.#opening -= 1;
    }
  }

  /**
   * Writes down what a name points at; an older observation than the known one changes nothing.
   *
   * @param name "registry/repository:tag", normalised
   * @throws when it is no such name, or when the index cannot be written
   */
  async tag(name: string, observation: TagObservation): Promise<void> {
    this.#requireOpen({});
    if (!isTagName(name)) {
      throw new Error(`Cannot tag ${name}: it is no registry/repository:tag in normal form`);
    }
    const { digest, mediaType, sizeBytes, observedAtMs } = observation;
    if (!(Math.abs(observedAtMs) <= maxDateMs)) {
      throw new Error(`Cannot tag ${name}: ${observedAtMs} is no time`);
    }
    const recordedAtMs = this.#now();
    await this.#index.set({ name, digest, mediaType, sizeBytes, observedAtMs, recordedAtMs });
  }

  /**
   * Removes a blob, for instance one whose bytes turned out to be wrong.
   *
   * @returns whether it was there
   */
  async remove(digest: Digest): Promise<boolean> {
    this.#requireOpen({});
    const removed = await this.#room.remove(digest);
    await this.#dropNamesOf(new Set([digest]));
    return removed;
  }

  async #openWriter(
    digest: Digest,
    { replaces = false, ...options }: { readonly sizeBytes?: number; readonly replaces?: boolean },
  ): Promise<BlobWriter> {
    const writer: BlobFileWriter = await BlobFileWriter.create(
      {
        digest,
        ...options,
        temporaryPath: join(this.#path, 'ingest', randomUUID()),
        finalPath: this.#files.pathOf(digest),
      },
      {
        reserve: (sizeBytes) => this.#room.reserve(digest, sizeBytes),
        release: (sizeBytes) => this.#room.release(sizeBytes),
        isHeld: async () => !replaces && (await this.#files.stat(digest)) !== undefined,
        committed: (sizeBytes) => this.#room.commit(digest, sizeBytes),
        ended: () => this.#writers.delete(writer),
      },
    );
    if (this.#closed) {
      await writer.abort();
      this.#requireOpen({});
    }
    this.#writers.add(writer);
    return writer;
  }

  async #takeStock(): Promise<void> {
    const held = await this.#room.takeStock();
    const gone = this.#index.list().filter(({ digest }) => !held.has(digest));
    await this.#index.remove(gone.map(({ name }) => name));
  }

  async #dropNamesOf(digests: ReadonlySet<Digest>): Promise<void> {
    if (digests.size === 0) return;
    const gone = this.#index.list().filter(({ digest }) => digests.has(digest));
    try {
      await this.#index.remove(gone.map(({ name }) => name));
    } catch (error) {
      // The names are gone from memory; a later write takes them off the disk.
      this.#log.warn({ err: error }, 'Cannot write index.json');
    }
  }

  async #isHeld(entry: NamedDescriptor): Promise<boolean> {
    const info = await this.#files.stat(entry.digest);
    return info?.sizeBytes === entry.sizeBytes;
  }

  #requireOpen(options: StoreCallOptions): void {
    options.signal?.throwIfAborted();
    if (this.#closed) throw new StoreUnavailableError(`Cannot use ${this.#path}: it is closed`);
  }
}

async function prepareLayout(path: string): Promise<void> {
  await mkdir(join(path, 'blobs', 'sha256'), { recursive: true });
  await mkdir(join(path, 'blobs', 'sha512'), { recursive: true });
  await mkdir(join(path, 'ingest'), { recursive: true });
  for (const leftover of await readdir(join(path, 'ingest'))) {
    await rm(join(path, 'ingest', leftover), { recursive: true, force: true });
  }
  try {
    const marker = `${JSON.stringify({ imageLayoutVersion: '1.0.0' })}\n`;
    await writeFile(join(path, 'oci-layout'), marker, { flag: 'wx' });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}
