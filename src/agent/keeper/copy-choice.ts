import { rendezvousOrder } from '../../discovery/rendezvous.ts';
import type { Digest } from '../../oci/digest.ts';

/** Another node with a complete copy of an image. */
export interface CopyHolder {
  readonly node: string;
  /** Its runtime has the image under a name; else it merely still has the bytes. */
  readonly isNamed: boolean;
}

/** Bytes by what they are, so that what images share counts once. */
export type BlobSizes = ReadonlyMap<Digest, number>;

/** What is known of an image that this node has, or guards. */
export interface CopyState {
  /** Of what its name points at: index or manifest. */
  readonly target: Digest;
  /** All that a pull of it for this platform needs. */
  readonly blobs: BlobSizes;
  /** How many complete copies the cluster shall have. */
  readonly wanted: number;
  /** Complete copies on other nodes. */
  readonly others: number;
  /** Those of them that come before this node's when it is decided who keeps one. */
  readonly ahead: number;
  /**
   * held: only Salvor keeps it here. idle: the runtime has it, no container uses it. inUse: one
   * does, and kubelet removes no such image.
   */
  readonly state: 'held' | 'idle' | 'inUse';
  readonly isGuarded: boolean;
  /** All of it is there; else it is no copy, and nobody needs to keep it. */
  readonly isWhole: boolean;
  /** When it was last confirmed or used here, milliseconds since the epoch. */
  readonly usedAtMs: number;
}

/** Why this node lets go of a copy. */
export type ReleaseReason =
  | 'copies' // enough others have one
  | 'budget' // others need the space more
  | 'policy' // none is wanted
  | 'incomplete' // it is no complete copy any more
  | 'disk_release' // the disk fills up
  | 'disk_drop'; // the disk is almost full

export interface CopyChoice {
  /** What is to be guarded, in the order of need. */
  readonly guard: readonly CopyState[];
  /** What is guarded and need not be, or cannot be. */
  readonly release: ReadonlyMap<Digest, ReleaseReason>;
}

/**
 * How many other copies come before this node's own. Copies that a runtime has under a name come
 * first, since nobody has to keep those; the rest is rendezvous order, the same on every node.
 */
export function copiesAhead(
  target: Digest,
  self: CopyHolder,
  others: readonly CopyHolder[],
): number {
  const rivals = others.filter(({ isNamed }) => isNamed === self.isNamed).map(({ node }) => node);
  const before = rendezvousOrder(target, [...rivals, self.node]).indexOf(self.node);
  return self.isNamed ? before : before + others.filter(({ isNamed }) => isNamed).length;
}

/**
 * Decides which images to guard: those of whose wanted copies this node has to keep one, as far as
 * the budget goes. The fewer other copies the sooner; those that the runtime has given up before
 * those that it may give up, and those before what is in use, which it never does; then the most
 * recently used.
 *
 * @param options.isBlind nobody could be asked: what is guarded stays before anything new
 */
export function chooseCopies(
  states: readonly CopyState[],
  options: { readonly budgetBytes: number; readonly isBlind: boolean },
): CopyChoice {
  const guard: CopyState[] = [];
  const release = new Map<Digest, ReleaseReason>();
  const taken = new UniqueBytes();
  for (const state of [...states].sort(byNeed(options))) {
    const refusal = reasonAgainst(state) ?? fits(state, taken, options.budgetBytes);
    if (refusal === undefined) {
      taken.add(state.blobs);
      guard.push(state);
    } else if (state.isGuarded) release.set(state.target, refusal);
  }
  return { guard, release };
}

/** The order in which copies go while the disk is too full: best replicated, then oldest first. */
export function byDispensability(
  a: Pick<CopyState, 'others' | 'usedAtMs' | 'target'>,
  b: Pick<CopyState, 'others' | 'usedAtMs' | 'target'>,
): number {
  return b.others - a.others || a.usedAtMs - b.usedAtMs || (a.target < b.target ? -1 : 1);
}

/** A set of blobs and how many bytes it has. */
export class UniqueBytes {
  readonly #uses = new Map<Digest, number>();
  #sizeBytes = 0;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** How much more it would be with these. */
  missingBytes(blobs: BlobSizes): number {
    let missing = 0;
    for (const [digest, sizeBytes] of blobs) if (!this.#uses.has(digest)) missing += sizeBytes;
    return missing;
  }

  add(blobs: BlobSizes): void {
    this.#sizeBytes += this.missingBytes(blobs);
    for (const digest of blobs.keys()) this.#uses.set(digest, (this.#uses.get(digest) ?? 0) + 1);
  }

  /** Takes out what was added. @returns how many bytes nobody else had added */
  remove(blobs: BlobSizes): number {
    let gone = 0;
    for (const [digest, sizeBytes] of blobs) {
      const uses = this.#uses.get(digest) ?? 0;
      if (uses > 1) this.#uses.set(digest, uses - 1);
      else if (this.#uses.delete(digest)) gone += sizeBytes;
    }
    this.#sizeBytes -= gone;
    return gone;
  }
}

const ranks: Readonly<Record<CopyState['state'], number>> = { held: 0, idle: 0, inUse: 1 };
/** Uses closer together than this are the same, so that leases do not change hands all the time. */
const usedStepMs = 3_600_000;

function byNeed({ isBlind }: { readonly isBlind: boolean }) {
  return (a: CopyState, b: CopyState): number =>
    (isBlind ? Number(b.isGuarded) - Number(a.isGuarded) : 0) ||
    ranks[a.state] - ranks[b.state] ||
    a.others - b.others ||
    Number(b.state === 'held') - Number(a.state === 'held') ||
    Math.floor(b.usedAtMs / usedStepMs) - Math.floor(a.usedAtMs / usedStepMs) ||
    Number(b.isGuarded) - Number(a.isGuarded) ||
    b.usedAtMs - a.usedAtMs ||
    (a.target < b.target ? -1 : 1);
}

function reasonAgainst({ isWhole, wanted, ahead }: CopyState): ReleaseReason | undefined {
  if (!isWhole) return 'incomplete';
  if (wanted === 0) return 'policy';
  return ahead >= wanted ? 'copies' : undefined;
}

function fits(
  { blobs }: CopyState,
  taken: UniqueBytes,
  budgetBytes: number,
): ReleaseReason | undefined {
  return taken.sizeBytes + taken.missingBytes(blobs) <= budgetBytes ? undefined : 'budget';
}
