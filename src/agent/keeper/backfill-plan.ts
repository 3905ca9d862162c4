import type { Digest } from '../../oci/digest.ts';
import type { ImagePart, LocalImage } from './local-images.ts';
import type { Repository, WantedBlob } from './wanted-blob.ts';

/** What is wrong with content that this node should have. */
export type Damage =
  /** A layer that was thrown away after unpacking, or never came. */
  | 'missing'
  /** Content that a record of the store counts on, and that is gone all the same. */
  | 'lost'
  /** The bytes on disk are not those of the digest. */
  | 'corrupt';

/** One blob to be put right. */
export interface BackfillJob extends WantedBlob {
  readonly damage: Damage;
  readonly isInUse: boolean;
  /** Manifests whose labels have to hold a layer, or garbage collection would take it again. */
  readonly manifests: readonly Digest[];
  /** One name of an image that needs it, for people; undefined when none does. */
  readonly image?: string;
}

export interface BackfillPolicy {
  /** Whether missing layers are fetched: always, never, or where the store throws layers away. */
  readonly backfill: 'auto' | 'always' | 'off';
  /** Whether missing layers are fetched only for images that something runs. */
  readonly onlyInUse: boolean;
  readonly repair: 'auto' | 'off';
}

/** What there is to do on this node, and what is left alone. */
export interface BackfillPlan {
  /** In the order in which it is to be done. */
  readonly jobs: readonly BackfillJob[];
  /** Images of which something is not held, lazily fetched ones left out. */
  readonly incompleteImages: number;
  /** Images whose layers a snapshotter fetches by itself. */
  readonly lazyImages: number;
  /** Whether the store throws layers away once they are unpacked. */
  readonly discards: boolean;
}

/** What a plan is made from, beside the images. */
export interface BackfillFindings {
  /** Blobs whose bytes were found to be wrong. */
  readonly corrupt: ReadonlySet<Digest>;
  /** Of what is not held: blobs that the store has a record of. */
  readonly recorded: ReadonlySet<Digest>;
  /** Whether layers were seen to be thrown away before. */
  readonly discards: boolean;
}

/**
 * Orders what is to be put right: wrong and lost content first, then layers of what is in use,
 * the smallest first, so that as many images as possible are complete soon.
 */
export function planBackfill(
  images: readonly LocalImage[],
  findings: BackfillFindings,
  policy: BackfillPolicy,
): BackfillPlan {
  const discards =
    findings.discards ||
    images.some(({ isDiscarded, lazySnapshotter }) => isDiscarded && lazySnapshotter === undefined);
  const fills = policy.backfill === 'always' || (policy.backfill === 'auto' && discards);
  const jobs = new Map<Digest, BackfillJob>();
  let incompleteImages = 0;
  let lazyImages = 0;
  for (const image of images) {
    if (image.lazySnapshotter !== undefined) lazyImages += 1;
    let isIncomplete = false;
    for (const part of image.parts) {
      const damage = damageOf(part, findings);
      if (damage === undefined) continue;
      if (damage === 'missing' && image.lazySnapshotter !== undefined) continue;
      isIncomplete = true;
      const isWanted =
        damage === 'missing'
          ? fills && (image.isInUse || !policy.onlyInUse)
          : policy.repair === 'auto';
      if (isWanted) jobs.set(part.digest, joined(jobs.get(part.digest), { part, image, damage }));
    }
    if (isIncomplete) incompleteImages += 1;
  }
  return {
    jobs: [...jobs.values()].sort(byUrgency),
    incompleteImages,
    lazyImages,
    discards,
  };
}

function damageOf(part: ImagePart, findings: BackfillFindings): Damage | undefined {
  if (part.isHeld) return findings.corrupt.has(part.digest) ? 'corrupt' : undefined;
  if (part.kind !== 'layer' || findings.recorded.has(part.digest)) return 'lost';
  return 'missing';
}

function joined(
  known: BackfillJob | undefined,
  { part, image, damage }: { part: ImagePart; image: LocalImage; damage: Damage },
): BackfillJob {
  const { digest, sizeBytes, kind } = part;
  const own = kind === 'layer' || kind === 'config' ? image.manifestDigest : undefined;
  const manifests = new Set(known?.manifests);
  if (own !== undefined) manifests.add(own);
  return {
    digest,
    sizeBytes,
    isManifest: kind === 'index' || kind === 'manifest',
    damage,
    repositories: distinct([...(known?.repositories ?? []), ...image.repositories]),
    isInUse: known?.isInUse === true || image.isInUse,
    manifests: [...manifests],
    image: known?.image ?? image.name,
  };
}

function distinct(repositories: readonly Repository[]): Repository[] {
  const byName = new Map(
    repositories.map((each) => [`${each.registry}/${each.repository}`, each] as const),
  );
  return [...byName.values()];
}

function byUrgency(a: BackfillJob, b: BackfillJob): number {
  const urgency = ({ damage, isInUse }: BackfillJob): number =>
    (damage === 'missing' ? 2 : 0) + (isInUse ? 0 : 1);
  return urgency(a) - urgency(b) || a.sizeBytes - b.sizeBytes;
}
