import type { Digest } from '../oci/digest.ts';
import type { NameKnowledge } from '../rpc/peer-client.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import type { CorruptionReports } from './corruption-reports.ts';
import type { Integrity } from './integrity.ts';
import type { Observations } from './observations.ts';
import type { BlobInfo, ContentStore, OpenBlob, StoreCallOptions } from './store.ts';

/** What this node may promise of a blob. */
export interface HeldBlobState extends BlobInfo {
  readonly verified: boolean;
}

/**
 * What this node holds and is willing to vouch for: the store's content less what was found to be
 * wrong, and what is known about names.
 */
export class HeldContent {
  readonly #store: ContentStore;
  readonly #integrity: Pick<Integrity, 'stateOf' | 'request'>;
  readonly #reports: Pick<CorruptionReports, 'add'>;
  readonly #observations: Observations;

  constructor(dependencies: {
    store: ContentStore;
    integrity: Pick<Integrity, 'stateOf' | 'request'>;
    reports: Pick<CorruptionReports, 'add'>;
    observations: Observations;
  }) {
    this.#store = dependencies.store;
    this.#integrity = dependencies.integrity;
    this.#reports = dependencies.reports;
    this.#observations = dependencies.observations;
  }

  /**
   * @returns undefined when the blob is not held, or known to be wrong
   * @throws StoreUnavailableError
   */
  async stat(digest: Digest, options: StoreCallOptions): Promise<HeldBlobState | undefined> {
    const info = await this.#store.stat(digest, options);
    return info === undefined ? undefined : this.#vouched(info);
  }

  /**
   * Opens a blob; the caller closes it.
   *
   * @returns undefined as in {@link stat}
   * @throws StoreUnavailableError
   */
  async open(
    digest: Digest,
    options: StoreCallOptions,
  ): Promise<{ blob: OpenBlob; verified: boolean } | undefined> {
    const blob = await this.#store.open(digest, options);
    if (blob === undefined) return undefined;
    const state = this.#vouched(blob);
    if (state !== undefined) return { blob, verified: state.verified };
    await blob.close();
    return undefined;
  }

  /**
   * What a name points at: what the upstream confirmed first, then the store's own record.
   *
   * @throws StoreUnavailableError
   */
  async resolve(name: string, options: StoreCallOptions): Promise<NameKnowledge> {
    const observed = this.#observations.get(name);
    const record = await this.#store.resolve(name, options);
    const statements: TagStatement[] = observed === undefined ? [] : [observed];
    if (record !== undefined) {
      const { digest, mediaType, sizeBytes, recordedAtMs, observedAtMs } = record;
      statements.push({
        digest,
        mediaType,
        sizeBytes,
        recordedAtMs,
        ...(observedAtMs === undefined ? {} : { observedAtMs }),
      });
    }
    const isConfirmed = statements.some(({ observedAtMs }) => observedAtMs !== undefined);
    return { tags: statements, registrySeen: isConfirmed || this.#observations.hasSeen(name) };
  }

  /** Every blob that this node vouches for. */
  async *blobs(options: StoreCallOptions): AsyncGenerator<HeldBlobState> {
    for await (const info of this.#store.blobs(options)) {
      const state = this.#vouched(info);
      if (state !== undefined) yield state;
    }
  }

  /** Every name in the store, those with digests included. */
  names(options: StoreCallOptions): ReturnType<ContentStore['names']> {
    return this.#store.names({ ...options, withDigests: true });
  }

  /**
   * Somebody says that they got wrong bytes: look again.
   *
   * @param options.host who says so
   */
  async reportCorrupt(digest: Digest, options: { readonly host: string }): Promise<void> {
    await this.#reports.add(digest, options);
  }

  #vouched(info: BlobInfo): HeldBlobState | undefined {
    const state = this.#integrity.stateOf(info);
    if (state === 'corrupt') return undefined;
    if (state === 'unverified') this.#integrity.request(info.digest);
    const { digest, sizeBytes, fingerprint } = info;
    return { digest, sizeBytes, fingerprint, verified: state === 'verified' };
  }
}
