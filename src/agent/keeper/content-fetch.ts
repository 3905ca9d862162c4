import { DigestVerifier } from '../../oci/verifier.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { BytePace } from '../byte-pace.ts';
import { WrongContentError } from '../containerd/content-write.ts';
import { within } from './deadline.ts';
import { FetchError } from './fetch-error.ts';
import type { OpenedBytes } from './opened-bytes.ts';
import type { HolderFinder, PeerHolder } from './peer-holders.ts';
import type { RegistryBlobs } from './registry-blobs.ts';
import type { WantedBlob } from './wanted-blob.ts';

export interface ContentFetchOptions {
  /** How long a source may take for the next bytes, milliseconds. */
  readonly stallMs: number;
}

export interface ContentFetchDependencies {
  readonly holders: Pick<HolderFinder, 'find' | 'open' | 'reportCorrupt'>;
  /** The upstreams; undefined where there is no way to them. */
  readonly upstream: Pick<RegistryBlobs, 'open'> | undefined;
  readonly pace: Pick<BytePace, 'take'>;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'info' | 'warn' | 'debug'>;
}

const upstreamLabel = 'upstream';
/** How often a blob is begun anew after wrong bytes, at most. */
const maxRounds = 8;

/**
 * Fetches one blob: from nodes that hold it, those first that have hashed their copy, and from the
 * upstream when none of them can. A source that breaks or stalls is left at the byte where it
 * stands and the next one goes on there. Everything is hashed; when the end is wrong, whoever took
 * part is left out and the blob begins anew.
 */
export class ContentFetch {
  readonly #options: ContentFetchOptions;
  readonly #parts: ContentFetchDependencies;

  constructor(options: ContentFetchOptions, dependencies: ContentFetchDependencies) {
    this.#options = options;
    this.#parts = dependencies;
  }

  /**
   * Hands the bytes of a blob to a writer, again from where it wants them as long as they turn out
   * to be wrong and there are other sources.
   *
   * @param write takes the bytes from an offset on to the end, which must not count as complete
   *   unless the iteration ends without an error; throws WrongContentError when it finds them wrong
   * @returns what `write` returned, and who gave something: "upstream" and "node/<name>"
   * @throws FetchError when no source can give them, the signal's reason, and what `write` throws
   */
  async fetch<T>(
    wanted: WantedBlob,
    write: (chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>) => Promise<T>,
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly result: T; readonly sources: readonly string[] }> {
    const run = new FetchRun(wanted, { ...this.#options, ...this.#parts, ...options });
    for (let round = 1; round <= maxRounds; round += 1) {
      try {
        const result = await write((offsetBytes) => run.bytes(offsetBytes));
        return { result, sources: run.sources };
      } catch (error) {
        if (!(error instanceof WrongContentError)) throw error;
        run.leaveOutContributors();
      }
    }
    throw new FetchError('wrong_bytes', `Cannot fetch ${wanted.digest}: too many gave wrong bytes`);
  }
}

type RunParts = ContentFetchOptions & ContentFetchDependencies & { readonly signal: AbortSignal };

interface BlobBytesSource {
  /** "upstream" or "node/<name>". */
  readonly label: string;
  readonly holder?: PeerHolder;
  open(offsetBytes: number): Promise<OpenedBytes>;
}

class FetchRun {
  readonly #wanted: WantedBlob;
  readonly #parts: RunParts;
  /** Labels of sources that are not to be asked again. */
  readonly #excluded = new Set<string>();
  /** Who gave bytes since the last beginning. */
  #contributors = new Map<string, PeerHolder | undefined>();
  #startBytes = 0;
  #receivedBytes = 0;
  #failure: FetchError | undefined;

  constructor(wanted: WantedBlob, parts: RunParts) {
    this.#wanted = wanted;
    this.#parts = parts;
  }

  get sources(): readonly string[] {
    return [...this.#contributors.keys()];
  }

  /** @throws WrongContentError in place of the end when the bytes are wrong; FetchError */
  async *bytes(startBytes: number): AsyncGenerator<Uint8Array> {
    const { digest, sizeBytes } = this.#wanted;
    this.#startBytes = startBytes;
    this.#receivedBytes = startBytes;
    const verifier = new DigestVerifier(digest);
    for await (const source of this.#sources()) {
      try {
        for await (const chunk of this.#bytesOf(source)) {
          verifier.update(chunk);
          yield chunk;
          await this.#parts.pace.take(chunk.byteLength, this.#parts);
        }
      } catch (error) {
        this.#note(source, error);
      }
      if (this.#receivedBytes === sizeBytes) break;
    }
    if (this.#receivedBytes < sizeBytes || this.#contributors.size === 0) throw this.#noSource();
    // What was there before could not be hashed here; the writer judges the whole.
    if (startBytes > 0 || verifier.matches()) return;
    throw new WrongContentError(`Cannot take ${digest}: the bytes are not those of the digest`);
  }

  /** Nobody can say which of those that took part was wrong, so none of them is asked again. */
  leaveOutContributors(): void {
    const { digest } = this.#wanted;
    const { holders, log } = this.#parts;
    const sources = this.sources;
    log.warn({ digest, sources }, 'Got wrong bytes of a blob; fetching it from elsewhere');
    // Then it may as well have been what an earlier try left.
    if (this.#startBytes === 0) {
      for (const [label, holder] of this.#contributors) {
        this.#excluded.add(label);
        if (holder !== undefined) holders.reportCorrupt(holder, digest);
      }
    }
    const from = sources.join(', ');
    this.#failure = new FetchError(
      'wrong_bytes',
      `Cannot fetch ${digest}: wrong bytes came from ${from}`,
    );
    this.#contributors = new Map();
  }

  async *#sources(): AsyncGenerator<BlobBytesSource> {
    const { digest, sizeBytes, repositories } = this.#wanted;
    const { holders, upstream } = this.#parts;
    for (const holder of await holders.find(this.#wanted, this.#parts)) {
      const label = `node/${holder.member.name}`;
      if (this.#excluded.has(label) || holder.sizeBytes !== sizeBytes) continue;
      const open = (offsetBytes: number): Promise<OpenedBytes> =>
        holders.open(holder, { digest, offsetBytes }, this.#parts);
      yield { label, holder, open };
    }
    if (upstream === undefined) return;
    for (const repository of repositories) {
      if (this.#excluded.has(upstreamLabel)) return;
      const open = (offsetBytes: number): Promise<OpenedBytes> =>
        upstream.open({ ...this.#wanted, ...repository, offsetBytes }, this.#parts);
      yield { label: upstreamLabel, open };
    }
  }

  async *#bytesOf(source: BlobBytesSource): AsyncGenerator<Uint8Array> {
    const { clock, signal, stallMs } = this.#parts;
    const { digest, sizeBytes } = this.#wanted;
    const opened = await source.open(this.#receivedBytes);
    try {
      if (opened.sizeBytes !== undefined && opened.sizeBytes !== sizeBytes) {
        throw new Error(`it has ${opened.sizeBytes} bytes of it, not ${sizeBytes}`);
      }
      const chunks = opened.chunks[Symbol.asyncIterator]();
      const what = `the next bytes of ${digest}`;
      for (;;) {
        const next = await within(chunks.next(), { timeoutMs: stallMs, what, clock, signal });
        if (next.done === true) break;
        const chunk = next.value;
        if (this.#receivedBytes + chunk.byteLength > sizeBytes) {
          throw new Error(`more than ${sizeBytes} bytes came`);
        }
        this.#receivedBytes += chunk.byteLength;
        this.#contributors.set(source.label, source.holder);
        yield chunk;
      }
    } finally {
      opened.cancel();
    }
    if (this.#receivedBytes < sizeBytes) {
      throw new Error(`it ended at ${this.#receivedBytes} of ${sizeBytes} bytes`);
    }
    // An empty blob has no first byte that would have done this.
    this.#contributors.set(source.label, source.holder);
  }

  #note({ label, holder }: BlobBytesSource, error: unknown): void {
    this.#parts.signal.throwIfAborted();
    const { digest } = this.#wanted;
    this.#parts.log.debug({ digest, source: label, err: error }, 'A source did not give a blob');
    // Of the upstream, another repository may have it.
    if (holder !== undefined) this.#excluded.add(label);
    const reason = error instanceof Error ? error.message : String(error);
    this.#failure =
      error instanceof FetchError
        ? error
        : new FetchError(
            holder === undefined ? 'upstream_down' : 'holders_failed',
            `Cannot fetch ${digest} from ${label}: ${reason}`,
            { cause: error },
          );
  }

  #noSource(): FetchError {
    if (this.#failure !== undefined) return this.#failure;
    const { digest, repositories } = this.#wanted;
    const where =
      repositories.length === 0 ? ', and no image name says where else to ask' : ' of this size';
    return new FetchError('nowhere', `Cannot fetch ${digest}: no node has it${where}`);
  }
}
