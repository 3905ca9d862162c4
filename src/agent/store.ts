import type { Digest } from '../oci/digest.ts';

/** What a store knows of one complete blob. */
export interface BlobInfo {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /**
   * Changes whenever the bytes on disk may have changed (inode, size, change time), so that a
   * hash computed under one fingerprint need not be computed again.
   */
  readonly fingerprint: string;
}

/**
 * A blob that stays readable to its end, whatever garbage collection does meanwhile.
 * The holder must close it.
 */
export interface OpenBlob extends BlobInfo {
  /**
   * Fills `target` from byte `position` of the blob, as far as both reach.
   *
   * @returns how many bytes were read; 0 only at the end of the blob
   * @throws when the bytes can no longer be read
   */
  read(target: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

/** A name in the store and what it points at. */
export interface NamedDescriptor {
  /** "registry/repository:tag", normalised. */
  readonly name: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** When the store last wrote this record, in milliseconds since the epoch. */
  readonly recordedAtMs: number;
  /** When the upstream confirmed the name, where the store keeps that; same unit. */
  readonly observedAtMs?: number;
}

export interface StoreCallOptions {
  readonly signal?: AbortSignal;
}

/**
 * One node's content, addressed by digest and by name. Truth is what is on disk at the moment of
 * the call: nothing is promised from memory.
 *
 * Every method throws a {@link StoreUnavailableError} when the store cannot be asked at all, which
 * is different from its not holding something.
 */
export interface ContentStore {
  /** The adapter's name, for logs: "containerd" or "directory". */
  readonly kind: string;
  /** @returns undefined when the blob is not held in full */
  stat(digest: Digest, options?: StoreCallOptions): Promise<BlobInfo | undefined>;
  /** @returns undefined when the blob is not held in full */
  open(digest: Digest, options?: StoreCallOptions): Promise<OpenBlob | undefined>;
  /**
   * @param name "registry/repository:tag", normalised
   * @returns undefined when the store has no such name, or its target is not held
   */
  resolve(name: string, options?: StoreCallOptions): Promise<NamedDescriptor | undefined>;
  /** Every complete blob. A record that cannot be understood is left out, not thrown. */
  blobs(options?: StoreCallOptions): AsyncIterable<BlobInfo>;
  /**
   * Every "registry/repository:tag" name. The same holds for odd records.
   *
   * @param options.withDigests also every "registry/repository@digest", where the store has those
   */
  names(
    options?: StoreCallOptions & { readonly withDigests?: boolean },
  ): AsyncIterable<NamedDescriptor>;
  /**
   * Throws away what has been received so far of a blob that is still being written.
   *
   * @returns how many unfinished writes were thrown away
   */
  abortIngest(digest: Digest, options?: StoreCallOptions): Promise<number>;
  /** Whether the store can be asked at this moment, for readiness. Never throws. */
  ready(): Promise<boolean>;
  close(): Promise<void>;
}

/** The store cannot be asked: containerd is restarting, the directory is not readable. */
export class StoreUnavailableError extends Error {
  override readonly name = 'StoreUnavailableError';
}
