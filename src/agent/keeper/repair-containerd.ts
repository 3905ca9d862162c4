import { randomUUID } from 'node:crypto';
import type { Digest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { ContainerdEditor } from '../containerd/containerd-editor.ts';
import type { ContainerdLeases } from '../containerd/containerd-leases.ts';
import type { ContentStore } from '../store.ts';
import type { BackfillJob } from './backfill-plan.ts';
import { childLabels } from './child-labels.ts';
import { targetsOf } from './label-targets.ts';
import { RestoreError } from './restore-error.ts';
import type { StoredManifests } from './stored-manifests.ts';

/** Puts fetched content where it belongs. */
export interface Restore {
  /**
   * Takes the bytes of a blob into the store, in the place of what is wrong there.
   *
   * @param chunks gives them from an offset to the end
   * @throws RestoreError, StoreUnavailableError, WrongContentError and what `chunks` throws; then
   *   everything is as it was, as far as the store allows
   */
  restore(
    job: BackfillJob,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
    options: { readonly signal: AbortSignal },
  ): Promise<'written' | 'present'>;
  /** Ends what an earlier process has left under way. */
  tidy(options: { readonly signal: AbortSignal }): Promise<void>;
}

export interface ContainerdRestoreDependencies {
  readonly editor: Pick<ContainerdEditor, 'labels' | 'updateLabels' | 'deleteContent' | 'write'>;
  readonly leases: Pick<ContainerdLeases, 'create' | 'delete' | 'addResource' | 'list'>;
  readonly manifests: Pick<StoredManifests, 'read'>;
  readonly store: Pick<ContentStore, 'stat'>;
  readonly clock: Pick<Clock, 'now'>;
}

const leaseLabel = 'salvor.dev/backfill';
/** Longer than any fetch; what a killed process leaves is taken away by the next one. */
const leaseMs = 24 * 3_600_000;
/** Longer than the short time between taking a blob away and putting it back. */
const guardMs = 15 * 60_000;

/**
 * Puts content into containerd's store by its own API. Bytes are staged as an unfinished write, so
 * nothing is touched before all of them are there and right. What is wrong is then taken out,
 * garbage collection is made to remove its file (containerd would adopt a file that is there,
 * whatever is in it), and the new bytes are committed with the labels of the old.
 */
export class ContainerdRestore implements Restore {
  readonly #parts: ContainerdRestoreDependencies;

  constructor(dependencies: ContainerdRestoreDependencies) {
    this.#parts = dependencies;
  }

  async restore(
    job: BackfillJob,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<'written' | 'present'> {
    const { digest } = job;
    const labels = await this.#parts.editor.labels(digest, { signal });
    if (labels !== undefined) return this.#replace(job, chunks, { labels, signal });
    if (job.damage === 'corrupt') {
      throw new RestoreError(
        'shared_file',
        `Cannot replace ${digest}: only another namespace of containerd has it`,
      );
    }
    return this.#add(job, chunks, { signal });
  }

  async tidy({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { leases } = this.#parts;
    const left = await leases.list({ filters: [`labels."${leaseLabel}"`], signal });
    for (const { id } of left) await leases.delete(id, { signal });
  }

  /** Writes a blob of which there is no record. */
  async #add(
    job: BackfillJob,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<'written' | 'present'> {
    const { editor, leases } = this.#parts;
    const leaseId = await this.#lease({ flat: true, lifeMs: leaseMs, signal });
    try {
      const write = { ...writeOf(job), labels: sourceLabels(job), leaseId };
      const result = await editor.write(write, chunks, { signal });
      if (job.isManifest) await this.#holdChildren(job.digest, signal);
      return result;
    } finally {
      // Also when it was aborted: what is half written goes with its lease.
      await leases.delete(leaseId).catch(() => undefined);
    }
  }

  /** Writes a blob in the place of one of which there is a record. */
  async #replace(
    job: BackfillJob,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
    options: {
      readonly labels: Readonly<Record<string, string>>;
      readonly signal: AbortSignal;
    },
  ): Promise<'written' | 'present'> {
    const { editor, leases } = this.#parts;
    const { labels, signal } = options;
    const leaseId = await this.#lease({ flat: true, lifeMs: leaseMs, signal });
    const guardId = await this.#lease({ flat: false, lifeMs: guardMs, signal });
    const write = { ...writeOf(job), labels, leaseId };
    const taken: { isTaken: boolean; fileStays: boolean } = { isTaken: false, fileStays: false };
    const replace = async (): Promise<void> => {
      // What only this blob holds must outlive it; not flat, so that what is below stays, too.
      for (const target of targetsOf(labels)) await leases.addResource(guardId, target, { signal });
      signal.throwIfAborted();
      taken.isTaken = true;
      taken.fileStays = await this.#takeAway(job.digest);
    };
    try {
      await editor.write({ ...write, replace }, chunks, { signal }).catch((error: unknown) => {
        if (!taken.isTaken) throw error;
        // Everything is there but the commit, and stopping here would leave it worse than before.
        return editor.write(write, nothingMore);
      });
    } finally {
      for (const id of [leaseId, guardId]) await leases.delete(id).catch(() => undefined);
    }
    if (!taken.fileStays) return 'written';
    throw new RestoreError(
      'shared_file',
      `Cannot replace ${job.digest}: another namespace of containerd holds its file`,
    );
  }

  /** Takes a blob out of the store, its record and its file. @returns whether the file stays */
  async #takeAway(digest: Digest): Promise<boolean> {
    const { editor, leases, store } = this.#parts;
    await editor.deleteContent(digest);
    const trigger = await this.#lease({ flat: true, lifeMs: guardMs });
    await leases.delete(trigger, { sync: true });
    return (await store.stat(digest)) !== undefined;
  }

  /** A manifest that came without labels gets those that a pull would have given it. */
  async #holdChildren(digest: Digest, signal: AbortSignal): Promise<void> {
    const { manifests, editor } = this.#parts;
    const manifest = await manifests.read(digest, { signal });
    if (manifest === undefined) return;
    const labels = childLabels(manifest).map(({ key, digest: child }) => [key, child] as const);
    await editor.updateLabels(digest, { set: Object.fromEntries(labels), signal });
  }

  async #lease(options: {
    readonly flat: boolean;
    readonly lifeMs: number;
    readonly signal?: AbortSignal;
  }): Promise<string> {
    const { leases, clock } = this.#parts;
    const { flat, lifeMs, ...rest } = options;
    const id = `salvor-backfill-${randomUUID()}`;
    const expiresAtMs = clock.now() + lifeMs;
    await leases.create(id, { flat, expiresAtMs, labels: { [leaseLabel]: 'true' } }, rest);
    return id;
  }
}

function writeOf({ digest, sizeBytes }: BackfillJob): {
  readonly ref: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
} {
  return { ref: `salvor-backfill-${digest}`, digest, sizeBytes };
}

async function* nothingMore(): AsyncGenerator<Uint8Array> {
  throw new Error('Cannot go on with a write: its bytes are gone');
}

/** Where content came from, as containerd notes it; hosts are without their ports there. */
function sourceLabels({ repositories }: BackfillJob): Record<string, string> {
  const byHost = Map.groupBy(repositories, ({ registry }) => registry.replace(/:\d+$/, ''));
  return Object.fromEntries(
    [...byHost].map(([host, found]) => [
      `containerd.io/distribution.source.${host}`,
      [...new Set(found.map(({ repository }) => repository))].join(','),
    ]),
  );
}
