import { randomBytes } from 'node:crypto';

import { digestHex, parseDigest, type Digest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { ContainerdLeases } from '../containerd/containerd-leases.ts';
import type { StoreCallOptions } from '../store.ts';
import type { BlobSizes } from './copy-choice.ts';

/** What a guard is for. */
export interface GuardedImage {
  readonly target: Digest;
  /** Names that the runtime has, or had, for it; for policies and for people. */
  readonly names: readonly string[];
  readonly blobs: BlobSizes;
  /** When it was last confirmed or used here, milliseconds since the epoch. */
  readonly usedAtMs: number;
}

/** A lease that is there and holds all of an image. */
export interface Guard extends GuardedImage {
  /** Of the lease. */
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly expiresAtMs: number;
}

export interface GuardLeasesOptions {
  /** How long a lease lives when nobody replaces it, milliseconds. */
  readonly lifetimeMs: number;
  /** How many leases of earlier processes are taken over; more are deleted. */
  readonly maxGuards: number;
}

export interface GuardLeasesDependencies {
  readonly leases: Pick<
    ContainerdLeases,
    'create' | 'delete' | 'list' | 'addResource' | 'listResources'
  >;
  /** The size of a blob that containerd has, in bytes. */
  readonly sizeOf: (digest: Digest, options: StoreCallOptions) => Promise<number | undefined>;
  readonly clock: Pick<Clock, 'now'>;
}

/** What leases there are. */
export interface FoundGuards {
  readonly guards: readonly Guard[];
  /** Leases of ours that hold nothing whole, or the same as another one. */
  readonly useless: readonly string[];
}

const targetLabel = 'salvor.dev/last-copy';
const namesLabel = 'salvor.dev/last-copy-names';
const usedAtLabel = 'salvor.dev/last-copy-used-at';
const countLabel = 'salvor.dev/last-copy-blobs';
const expiryLabel = 'containerd.io/gc.expire';
/** containerd takes no label that is longer than 4096, key and value together. */
const maxNamesChars = 3000;
/** What a lease of ours has; in the syntax of containerd's filters. */
const ours = `labels."${targetLabel}"`;

/**
 * Leases that keep the blobs of single images from garbage collection, whatever becomes of the
 * image's record. They are flat, so that they hold those blobs and no unpacked snapshots, and they
 * expire, so that nothing stays behind for ever where Salvor is gone.
 *
 * Everything throws a StoreUnavailableError when containerd cannot be asked.
 */
export class GuardLeases {
  readonly #options: GuardLeasesOptions;
  readonly #leases: GuardLeasesDependencies['leases'];
  readonly #sizeOf: GuardLeasesDependencies['sizeOf'];
  readonly #clock: GuardLeasesDependencies['clock'];

  constructor(options: GuardLeasesOptions, dependencies: GuardLeasesDependencies) {
    this.#options = options;
    this.#leases = dependencies.leases;
    this.#sizeOf = dependencies.sizeOf;
    this.#clock = dependencies.clock;
  }

  /** Whether it is time for a successor: half of the lease's life is over. */
  isDue({ expiresAtMs }: Guard): boolean {
    return expiresAtMs - this.#clock.now() <= this.#options.lifetimeMs / 2;
  }

  /**
   * Holds an image. Nothing stays behind when that fails.
   *
   * @returns undefined when a blob of it has gone meanwhile
   */
  async create(image: GuardedImage, options: StoreCallOptions): Promise<Guard | undefined> {
    const expiresAtMs = this.#clock.now() + this.#options.lifetimeMs;
    const suffix = randomBytes(6).toString('hex');
    const id = `salvor-last-copy-${digestHex(image.target).slice(0, 12)}-${suffix}`;
    const { target, names, blobs, usedAtMs } = image;
    try {
      const labels = labelsOf(image);
      if (!(await this.#leases.create(id, { flat: true, expiresAtMs, labels }, options))) {
        return undefined;
      }
      if (await this.#fill(id, blobs, options)) {
        return { id, target, names, blobs, usedAtMs, expiresAtMs };
      }
    } catch (error) {
      // The caller's signal may be what ended it; the lease has to go all the same.
      await this.#leases.delete(id).catch(() => undefined);
      throw error;
    }
    await this.#leases.delete(id, options);
    return undefined;
  }

  /**
   * Puts a fresh lease in the place of an old one, which goes only when the new one holds all.
   *
   * @returns undefined when the image has gone; the old lease goes, too
   */
  async renew(guard: Guard, options: StoreCallOptions): Promise<Guard | undefined> {
    const successor = await this.create(guard, options);
    await this.#leases.delete(guard.id, options);
    return successor;
  }

  /**
   * Lets go of a lease.
   *
   * @param options.sync waits until what nobody else holds has gone from the disk
   */
  async delete(id: string, options: StoreCallOptions & { readonly sync?: boolean }): Promise<void> {
    await this.#leases.delete(id, options);
  }

  /**
   * Every lease of ours that there is, of this process and of earlier ones.
   *
   * @param known by id, what need not be looked at again
   */
  async find(known: ReadonlyMap<string, Guard>, options: StoreCallOptions): Promise<FoundGuards> {
    const leases = await this.#leases.list({ ...options, filters: [ours] });
    const found = new Map<Digest, Guard>();
    const useless: string[] = [];
    for (const { id, labels } of leases) {
      const isFull = found.size >= this.#options.maxGuards;
      const guard = known.get(id) ?? (isFull ? undefined : await this.#read(id, labels, options));
      const rival = guard === undefined ? undefined : found.get(guard.target);
      if (guard === undefined) useless.push(id);
      else if (rival === undefined) found.set(guard.target, guard);
      else if (rival.expiresAtMs >= guard.expiresAtMs) useless.push(id);
      else {
        useless.push(rival.id);
        found.set(guard.target, guard);
      }
    }
    return { guards: [...found.values()], useless };
  }

  /** @returns whether the lease holds all of them, and all of them are there */
  async #fill(id: string, blobs: BlobSizes, options: StoreCallOptions): Promise<boolean> {
    for (const digest of blobs.keys()) {
      const isHeld = await this.#leases.addResource(id, { type: 'content', id: digest }, options);
      if (!isHeld) return false;
    }
    // containerd takes what does not exist, and the record may have gone in the meantime.
    for (const [digest, sizeBytes] of blobs) {
      if ((await this.#sizeOf(digest, options)) !== sizeBytes) return false;
    }
    return true;
  }

  async #read(
    id: string,
    labels: Readonly<Record<string, string>>,
    options: StoreCallOptions,
  ): Promise<Guard | undefined> {
    const target = parseDigest(labels[targetLabel] ?? '');
    const expiresAtMs = Date.parse(labels[expiryLabel] ?? '');
    const count = Number(labels[countLabel]);
    const resources = await this.#leases.listResources(id, options);
    if (!target.ok || Number.isNaN(expiresAtMs) || resources?.length !== count) return undefined;
    const blobs = new Map<Digest, number>();
    for (const resource of resources) {
      const digest = parseDigest(resource.id);
      const sizeBytes = digest.ok ? await this.#sizeOf(digest.value, options) : undefined;
      if (!digest.ok || sizeBytes === undefined) return undefined;
      blobs.set(digest.value, sizeBytes);
    }
    const names = (labels[namesLabel] ?? '').split(' ').filter((name) => name !== '');
    const usedAtMs = Date.parse(labels[usedAtLabel] ?? '') || 0;
    return { id, target: target.value, names, blobs, usedAtMs, expiresAtMs };
  }
}

/**
 * The leases that keep last copies, and images that would be last copies.
 *
 * @throws StoreUnavailableError
 */
export async function listGuardLeases(
  leases: Pick<ContainerdLeases, 'list'>,
  options: StoreCallOptions = {},
): Promise<readonly { readonly id: string }[]> {
  return leases.list({ ...options, filters: [ours] });
}

/**
 * Lets go of everything that is kept as a last copy, for good. The agent must not be running, or
 * it will begin anew.
 *
 * @returns how many leases that were
 * @throws StoreUnavailableError
 */
export async function removeGuardLeases(
  leases: Pick<ContainerdLeases, 'list' | 'delete'>,
  options: StoreCallOptions = {},
): Promise<number> {
  const found = await listGuardLeases(leases, options);
  // The last one waits until what all of them held has gone.
  for (const [index, { id }] of found.entries()) {
    await leases.delete(id, { ...options, sync: index === found.length - 1 });
  }
  return found.length;
}

function labelsOf({ target, names, blobs, usedAtMs }: GuardedImage): Record<string, string> {
  let listed = '';
  for (const name of names) {
    if (listed.length + name.length < maxNamesChars) listed += `${name} `;
  }
  return {
    [targetLabel]: target,
    [usedAtLabel]: new Date(usedAtMs).toISOString(),
    [countLabel]: String(blobs.size),
    // containerd takes no empty value.
    ...(listed === '' ? {} : { [namesLabel]: listed.trimEnd() }),
  };
}
