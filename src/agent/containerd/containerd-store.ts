import type { Digest } from '../../oci/digest.ts';
import { parseDigest } from '../../oci/digest.ts';
import type { Info, Status } from '../../rpc/gen/containerd/services/content/v1/content_pb.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { BlobFiles } from '../blob-files.ts';
import { StoreUnavailableError } from '../store.ts';
import type {
  BlobInfo,
  ContentStore,
  NamedDescriptor,
  OpenBlob,
  StoreCallOptions,
} from '../store.ts';
import type { StoreSurvey, SurveyedStore } from '../inventory/survey.ts';
import { isMissingBlob } from './call-failure.ts';
import { ContainerdClient } from './containerd-client.ts';
import type { ContainerdConnection } from './containerd-connection.ts';
import { ContainerdSurvey } from './containerd-survey.ts';
import { readImageRecord } from './image-record.ts';
import { StreamedBlob } from './streamed-blob.ts';

export interface ContainerdStoreOptions {
  /** The directory that contains `blobs`; containerd is asked for it when left out. */
  readonly contentPath?: string;
}

/**
 * The content store of a running containerd. Names come over its socket and belong to one of its
 * namespaces. Bytes come straight from its blob files, which all namespaces share, and over the
 * socket only where those cannot be read.
 *
 * While containerd is away, blobs are still served from their files; names throw a
 * StoreUnavailableError. Once it is back everything works again by itself.
 */
export class ContainerdStore implements ContentStore, SurveyedStore {
  readonly kind = 'containerd';
  readonly #connection: ContainerdConnection;
  readonly #client: ContainerdClient;
  readonly #survey: ContainerdSurvey;
  readonly #log: Pick<Logger, 'info' | 'warn'>;
  #files: BlobFiles | undefined;
  #readsFiles: boolean | undefined;

  constructor(
    options: ContainerdStoreOptions,
    dependencies: { connection: ContainerdConnection; log: Pick<Logger, 'info' | 'warn'> },
  ) {
    this.#log = dependencies.log;
    this.#connection = dependencies.connection;
    this.#client = new ContainerdClient(dependencies.connection);
    this.#survey = new ContainerdSurvey(dependencies.connection);
    if (options.contentPath !== undefined) this.#files = new BlobFiles(options.contentPath);
  }

  stat(digest: Digest, options: StoreCallOptions = {}): Promise<BlobInfo | undefined> {
    return this.#eitherWay(options, {
      files: (files) => files.stat(digest),
      socket: async () => {
        const info = await this.#client.info(digest, options);
        return info === undefined ? undefined : readInfo(info);
      },
    });
  }

  open(digest: Digest, options: StoreCallOptions = {}): Promise<OpenBlob | undefined> {
    return this.#eitherWay(options, {
      files: (files) => files.open(digest),
      socket: () => this.#openStream(digest, options),
    });
  }

  async resolve(
    name: string,
    options: StoreCallOptions = {},
  ): Promise<NamedDescriptor | undefined> {
    const image = await this.#client.image(name, options);
    const record = image === undefined ? undefined : readImageRecord(image);
    if (record?.name !== name) return undefined;
    return (await this.#isHeld(record, options)) ? record : undefined;
  }

  async *blobs(options: StoreCallOptions = {}): AsyncGenerator<BlobInfo> {
    const files = await this.#blobFiles(options);
    let listed = false;
    try {
      for await (const info of files?.list(options) ?? []) {
        listed = true;
        yield info;
      }
      if (files !== undefined) return;
    } catch (error) {
      // Starting again over the socket would give the same blobs twice.
      if (listed || !(error instanceof StoreUnavailableError)) throw error;
      this.#noteWay(false, error);
    }
    for await (const item of this.#client.content(options)) {
      const info = readInfo(item);
      if (info !== undefined) yield info;
    }
  }

  async *names({
    withDigests = false,
    ...options
  }: StoreCallOptions & { readonly withDigests?: boolean } = {}): AsyncGenerator<NamedDescriptor> {
    for (const image of await this.#client.images(options)) {
      const record = readImageRecord(image, { withDigests });
      if (record !== undefined && (await this.#isHeld(record, options))) yield record;
    }
  }

  async abortIngest(digest: Digest, options: StoreCallOptions = {}): Promise<number> {
    let aborted = 0;
    for (const ingest of await this.#client.ingests(options)) {
      if (!writes(ingest, digest)) continue;
      if (await this.#client.abortIngest(ingest.ref, options)) aborted += 1;
    }
    return aborted;
  }

  survey(options: StoreCallOptions = {}): Promise<StoreSurvey> {
    return this.#survey.take(options);
  }

  /** Whether containerd itself answers. */
  async ready(): Promise<boolean> {
    try {
      await this.#client.version({});
      return true;
    } catch {
      return false;
    }
  }

  /** Closes its connection, too. */
  async close(): Promise<void> {
    this.#connection.close();
  }

  async #isHeld(record: NamedDescriptor, options: StoreCallOptions): Promise<boolean> {
    const blob = await this.stat(record.digest, options);
    return blob?.sizeBytes === record.sizeBytes;
  }

  async #openStream(digest: Digest, options: StoreCallOptions): Promise<OpenBlob | undefined> {
    const info = await this.#client.info(digest, options);
    const blob = info === undefined ? undefined : readInfo(info);
    if (blob === undefined) return undefined;
    options.signal?.throwIfAborted();
    try {
      return await StreamedBlob.open(blob, this.#client);
    } catch (error) {
      if (isMissingBlob(error)) return undefined;
      throw error;
    }
  }

  async #eitherWay<T>(
    options: StoreCallOptions,
    ways: { files: (files: BlobFiles) => Promise<T>; socket: () => Promise<T> },
  ): Promise<T> {
    options.signal?.throwIfAborted();
    const files = await this.#blobFiles(options);
    if (files === undefined) return ways.socket();
    let problem: StoreUnavailableError;
    try {
      const result = await ways.files(files);
      this.#noteWay(true);
      return result;
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error;
      problem = error;
    }
    this.#noteWay(false, problem);
    return ways.socket();
  }

  /** @returns undefined when containerd names no directory */
  async #blobFiles(options: StoreCallOptions): Promise<BlobFiles | undefined> {
    if (this.#files === undefined) {
      const root = await this.#client.contentPath(options);
      if (root !== undefined) this.#files = new BlobFiles(root);
    }
    return this.#files;
  }

  #noteWay(readsFiles: boolean, problem?: Error): void {
    if (this.#readsFiles === readsFiles) return;
    this.#readsFiles = readsFiles;
    if (readsFiles) {
      this.#log.info({}, 'Reading blobs from the files of containerd');
    } else {
      this.#log.warn({ err: problem }, 'Reading blobs through the socket of containerd, slowly');
    }
  }
}

/** Without a file there is no inode; containerd commits a blob anew whenever it is replaced. */
function readInfo(info: Info): BlobInfo | undefined {
  const digest = parseDigest(info.digest);
  const sizeBytes = Number(info.size);
  if (!digest.ok || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) return undefined;
  const { seconds = 0n, nanos = 0 } = info.createdAt ?? {};
  return { digest: digest.value, sizeBytes, fingerprint: `${sizeBytes}-${seconds}-${nanos}` };
}

/** Pulls call their writes "layer-sha256:…", "manifest-sha256:…", "layer-<name>@sha256:…". */
function writes(ingest: Status, digest: Digest): boolean {
  const { ref, expected } = ingest;
  return (
    [ref, expected].includes(digest) || ref.endsWith(`-${digest}`) || ref.endsWith(`@${digest}`)
  );
}
