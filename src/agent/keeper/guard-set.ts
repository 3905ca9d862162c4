import type { Digest } from '../../oci/digest.ts';
import type { StoreCallOptions } from '../store.ts';
import { UniqueBytes, type BlobSizes } from './copy-choice.ts';
import type { Guard, GuardLeases, GuardedImage } from './guard-lease.ts';

/** What has to hold for a new guard, looked at when its turn has come. */
export interface GuardTerms extends StoreCallOptions {
  readonly mayAdd: () => boolean;
  /** What all guarded blobs together may have; undefined while that is unknown. */
  readonly budgetBytes: () => number | undefined;
}

/**
 * The images that this node guards. Changes take turns, each of them short, so that one that is
 * urgent never waits for many. What is guarded is never more than the budget that each addition
 * brings, since the bytes count from before the lease until after it.
 */
export class GuardSet {
  readonly #leases: Pick<GuardLeases, 'find' | 'create' | 'renew' | 'delete' | 'isDue'>;
  #guards = new Map<Digest, Guard>();
  #bytes = new UniqueBytes();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(dependencies: {
    leases: Pick<GuardLeases, 'find' | 'create' | 'renew' | 'delete' | 'isDue'>;
  }) {
    this.#leases = dependencies.leases;
  }

  /** By what the image's name points at. */
  get guards(): ReadonlyMap<Digest, Guard> {
    return this.#guards;
  }

  /** Of all guarded blobs, each counted once. */
  get sizeBytes(): number {
    return this.#bytes.sizeBytes;
  }

  /** Takes over the leases that there are, and deletes those that are of no use. */
  refresh(options: StoreCallOptions): Promise<void> {
    return this.#inTurn(async () => {
      const known = new Map([...this.#guards.values()].map((guard) => [guard.id, guard]));
      const { guards, useless } = await this.#leases.find(known, options);
      this.#guards = new Map(guards.map((guard) => [guard.target, guard]));
      this.#bytes = new UniqueBytes();
      for (const { blobs } of guards) this.#bytes.add(blobs);
      for (const id of useless) await this.#leases.delete(id, options);
    });
  }

  /** @returns whether the image is guarded now */
  add(image: GuardedImage, terms: GuardTerms): Promise<boolean> {
    return this.#inTurn(async () => {
      if (this.#guards.has(image.target)) return true;
      const budgetBytes = terms.budgetBytes();
      const wouldBe = this.#bytes.sizeBytes + this.#bytes.missingBytes(image.blobs);
      if (!terms.mayAdd() || budgetBytes === undefined || wouldBe > budgetBytes) return false;
      this.#bytes.add(image.blobs);
      let guard: Guard | undefined;
      try {
        guard = await this.#leases.create(image, terms);
      } finally {
        if (guard === undefined) this.#bytes.remove(image.blobs);
      }
      if (guard !== undefined) this.#guards.set(image.target, guard);
      return guard !== undefined;
    });
  }

  /**
   * Lets go of images. Those that are not guarded are passed over.
   *
   * @param targets "all": also what is being added at this moment
   * @param options.sync waits until what nobody else holds has gone from the disk
   */
  release(
    targets: readonly Digest[] | 'all',
    options: StoreCallOptions & { readonly sync: boolean },
  ): Promise<void> {
    return this.#inTurn(async () => {
      const known = [...this.#guards.keys()];
      const leaving = targets === 'all' ? known : known.filter((each) => targets.includes(each));
      for (const [index, target] of leaving.entries()) {
        const guard = this.#guards.get(target);
        if (guard === undefined) continue;
        const isLast = index === leaving.length - 1;
        await this.#leases.delete(guard.id, { ...options, sync: options.sync && isLast });
        this.#guards.delete(target);
        this.#bytes.remove(guard.blobs);
      }
    });
  }

  /** Replaces a lease of which half the life is over. @returns false when the image has gone */
  renewIfDue(target: Digest, options: StoreCallOptions): Promise<boolean> {
    return this.#inTurn(async () => {
      const guard = this.#guards.get(target);
      if (guard === undefined || !this.#leases.isDue(guard)) return true;
      const successor = await this.#leases.renew(guard, options);
      if (successor !== undefined) {
        this.#guards.set(target, successor);
        return true;
      }
      this.#guards.delete(target);
      this.#bytes.remove(guard.blobs);
      return false;
    });
  }

  /** Bytes of these images that nothing but their guards keeps on the disk. */
  bytesOnlyHeld(targets: Iterable<Digest>, kept: ReadonlySet<Digest>): number {
    const bytes = new UniqueBytes();
    for (const target of targets) {
      const blobs = this.#guards.get(target)?.blobs ?? new Map<Digest, number>();
      bytes.add(without(blobs, kept));
    }
    return bytes.sizeBytes;
  }

  /**
   * How far down a list of images one has to go to free so many bytes.
   *
   * @param targets only held by their guards, the first to go first
   * @param kept blobs that stay on the disk in any case
   */
  enoughOf(
    targets: readonly Digest[],
    kept: ReadonlySet<Digest>,
    wantedBytes: number,
  ): readonly Digest[] {
    const left = new UniqueBytes();
    for (const { blobs } of this.#guards.values()) left.add(without(blobs, kept));
    const chosen: Digest[] = [];
    let freedBytes = 0;
    for (const target of targets) {
      if (freedBytes >= wantedBytes) break;
      const guard = this.#guards.get(target);
      if (guard === undefined) continue;
      chosen.push(target);
      freedBytes += left.remove(without(guard.blobs, kept));
    }
    return chosen;
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function without(blobs: BlobSizes, kept: ReadonlySet<Digest>): BlobSizes {
  return new Map([...blobs].filter(([digest]) => !kept.has(digest)));
}
