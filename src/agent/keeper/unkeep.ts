import { parseDigest, type Digest } from '../../oci/digest.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { ContainerdEditor } from '../containerd/containerd-editor.ts';
import type { ContainerdLeases } from '../containerd/containerd-leases.ts';
import type { StoreCallOptions } from '../store.ts';
import { decodeMark, KEPT_MARK } from './kept-mark.ts';

/** What was taken off one blob, or would be. */
export interface Unkept {
  readonly digest: Digest;
  /** The keys of the labels, without the mark. */
  readonly labels: readonly string[];
}

export interface UnkeepDependencies {
  readonly client: Pick<ContainerdClient, 'content'>;
  readonly editor: Pick<ContainerdEditor, 'labels' | 'updateLabels'>;
  readonly leases: Pick<ContainerdLeases, 'create' | 'delete'>;
}

/** Deleting a lease is how containerd is asked to collect garbage at once. */
const sweepLease = 'salvor-unkeep';

/**
 * Takes away every label that the keeper has added, and only those, and has containerd free what
 * nothing refers to then. A second run finds nothing to do.
 *
 * @param options.dryRun only tells
 * @throws StoreUnavailableError, or the reason of the signal; what was done until then is done
 */
export async function* unkeep(
  { dryRun, ...options }: StoreCallOptions & { readonly dryRun: boolean },
  { client, editor, leases }: UnkeepDependencies,
): AsyncGenerator<Unkept> {
  // Listed to the end first: what is changed meanwhile could come twice, or not at all.
  const digests: Digest[] = [];
  for await (const info of client.content({ ...options, filters: [`labels."${KEPT_MARK}"`] })) {
    const digest = parseDigest(info.digest);
    if (digest.ok) digests.push(digest.value);
  }
  let changed = 0;
  for (const digest of digests) {
    const labels = await editor.labels(digest, options);
    const mark = labels?.[KEPT_MARK];
    if (labels === undefined || mark === undefined) continue;
    const keys = [...decodeMark(mark)].filter((key) => Object.hasOwn(labels, key));
    if (!dryRun) {
      await editor.updateLabels(digest, { ...options, remove: [...keys, KEPT_MARK] });
      changed += 1;
    }
    yield { digest, labels: keys };
  }
  if (changed === 0) return;
  await leases.create(sweepLease, { flat: true }, options);
  await leases.delete(sweepLease, { ...options, sync: true });
}
