import type { Digest } from '../../oci/digest.ts';
import type { Integrity } from '../integrity.ts';
import type { BackfillJob } from './backfill-plan.ts';
import { localImages, type ImageStore, type LocalImage } from './local-images.ts';

/** What there is on this node, and what of it is wrong. */
export interface Survey {
  readonly images: readonly LocalImage[];
  /** Blobs whose bytes are wrong at this moment. */
  readonly corrupt: ReadonlySet<Digest>;
  /** Layers that are not held although the store has a record of them. */
  readonly recorded: ReadonlySet<Digest>;
}

/** More than these are found again by the next hashing of the whole store. */
const maxCorrupt = 4096;

/** Looks at every image of this node. */
export class BackfillSurvey {
  readonly #platform: { readonly os: string; readonly architecture: string };
  readonly #store: ImageStore;
  readonly #integrity: Pick<Integrity, 'stateOf'>;
  readonly #corrupt = new Set<Digest>();

  constructor(
    options: { readonly platform: { readonly os: string; readonly architecture: string } },
    dependencies: { store: ImageStore; integrity: Pick<Integrity, 'stateOf'> },
  ) {
    this.#platform = options.platform;
    this.#store = dependencies.store;
    this.#integrity = dependencies.integrity;
  }

  /** Bytes were found to be wrong. */
  addCorrupt(digest: Digest): void {
    if (this.#corrupt.size < maxCorrupt) this.#corrupt.add(digest);
  }

  /** @throws StoreUnavailableError, or the signal's reason */
  async take({ signal }: { readonly signal: AbortSignal }): Promise<Survey> {
    await this.#forgetMended(signal);
    const images: LocalImage[] = [];
    const recorded = new Set<Digest>();
    const unheldLayers = new Set<Digest>();
    const walk = localImages({ platform: this.#platform }, { store: this.#store, signal });
    for await (const image of walk) {
      images.push(image);
      for (const { digest, kind, isHeld } of image.parts) {
        if (kind === 'layer' && !isHeld) unheldLayers.add(digest);
      }
    }
    for (const digest of unheldLayers) {
      const labels = await this.#store.labels(digest, { signal });
      if (labels !== undefined) recorded.add(digest);
    }
    return { images, corrupt: new Set(this.#corrupt), recorded };
  }

  /** Whether a blob is still to be put right: things change while others are worked on. */
  async isStillDue(
    { digest, damage, manifests }: BackfillJob,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<boolean> {
    const info = await this.#store.stat(digest, { signal });
    if (damage === 'corrupt') {
      return info !== undefined && this.#integrity.stateOf(info) === 'corrupt';
    }
    if (info !== undefined) return false;
    if (damage === 'lost') return true;
    // The images that need it may have been removed.
    for (const manifest of manifests) {
      if ((await this.#store.stat(manifest, { signal })) !== undefined) return true;
    }
    return false;
  }

  async #forgetMended(signal: AbortSignal): Promise<void> {
    for (const digest of this.#corrupt) {
      const info = await this.#store.stat(digest, { signal });
      const isStillWrong = info !== undefined && this.#integrity.stateOf(info) === 'corrupt';
      if (!isStillWrong) this.#corrupt.delete(digest);
    }
  }
}
