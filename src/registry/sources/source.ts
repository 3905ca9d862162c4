import type { Digest } from '../../oci/digest.ts';

/** A stretch of a blob: from `start` to `end`, both included. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
}

/** What is wanted of a blob: all of it, a stretch, or its last bytes. */
export type Wanted =
  { readonly start: number; readonly end?: number } | { readonly suffix: number };

/** Bytes on their way from one source. */
export interface OpenedBody {
  /** "upstream" or "node/<name>". */
  readonly source: string;
  /** "host:port" that sends it, where that may be another than the upstream's own. */
  readonly origin?: string;
  /** Which endpoint of the upstream sends it, counted from 0. */
  readonly endpoint?: number;
  /** Of the whole blob. */
  readonly sizeBytes: number;
  /** What the chunks cover; it may begin before what was wanted, never behind. */
  readonly stretch: Stretch;
  /** Whether the bytes are known to be right, so that a stretch of them may go out unhashed. */
  readonly trusted: boolean;
  readonly chunks: AsyncIterable<Buffer>;
  /** Stops the source. May be called at any time, also twice. */
  cancel(): void;
}

export interface OpenOptions {
  readonly signal: AbortSignal;
  /**
   * The reader hashes the whole blob, over all sources, and can start anywhere. Without that, a
   * source that cannot vouch for its bytes sends them from the beginning.
   */
  readonly hashed: boolean;
  /** Nobody vouches for a copy any more: the source sends all of it, to be hashed here. */
  readonly isLastResort?: boolean;
}

/** Where the bytes of a blob can come from. */
export interface BlobSource {
  readonly label: string;
  /**
   * Opens a stretch of a blob.
   *
   * @throws SourceError when this source cannot give it
   */
  open(digest: Digest, wanted: Wanted, options: OpenOptions): Promise<OpenedBody>;
}

/** A source gave nothing, or stopped giving. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
  /** In a word, for log lines and metrics. */
  readonly outcome: string;

  constructor(outcome: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.outcome = outcome;
  }
}
