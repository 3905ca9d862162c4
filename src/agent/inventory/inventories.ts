import { setImmediate as breathe } from 'node:timers/promises';
import type { Descriptor } from '../../oci/descriptor.ts';
import type { Digest } from '../../oci/digest.ts';
import type { TagStatement } from '../../rpc/agent-protocol.ts';
import type {
  ImageTree,
  InventoryImage,
  NodeBlob,
  NodeFacts,
  NodeInventory,
} from '../../rpc/inventory.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Integrity } from '../integrity.ts';
import type { Observations } from '../observations.ts';
import type { ContentStore } from '../store.ts';
import { ImageWalker, targetOf, type WalkContext } from './image-walker.ts';
import { ManifestReader } from './manifest-reader.ts';
import type { StoreSurvey, SurveyedImage, SurveyedStore } from './survey.ts';

export interface InventoriesOptions {
  /** This node's name. */
  readonly node: string;
  /** How old an inventory may be that is given to somebody who asks, milliseconds. */
  readonly maxAgeMs?: number;
  /** How long a walk may take, milliseconds. */
  readonly walkTimeoutMs?: number;
}

/** A walk that takes long is not begun again at once: whoever asks has a fifth of the time. */
const REST_PER_WALK = 4;
const DEFAULT_MAX_AGE_MS = 1000;
/** The machine's time may be set meanwhile. */
const MAX_REST_MS = 15_000;
const DEFAULT_WALK_TIMEOUT_MS = 120_000;
/** How many images are walked at a time, and how many before others get their turn. */
const WALKS_AT_A_TIME = 8;
const BLOBS_A_TURN = 500;
const CHILD_LABEL = 'containerd.io/gc.ref.content.';

/**
 * What this node has, image by image, down to every blob. Found by listing, since nobody announces
 * what garbage collection takes; many who ask at the same time share one walk.
 */
export class Inventories {
  readonly #options: Required<InventoriesOptions>;
  readonly #store: Pick<ContentStore, 'blobs' | 'kind'> & SurveyedStore;
  readonly #integrity: Pick<Integrity, 'stateOf' | 'request'>;
  readonly #observations: Pick<Observations, 'entries' | 'registries'>;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #walker: ImageWalker;
  #last:
    | {
        readonly inventory: Promise<NodeInventory>;
        readonly atMs: number | undefined;
        readonly maxAgeMs: number;
      }
    | undefined;
  readonly #stopped = new AbortController();

  constructor(
    options: InventoriesOptions,
    dependencies: {
      store: Pick<ContentStore, 'blobs' | 'kind' | 'open'> & SurveyedStore;
      integrity: Pick<Integrity, 'stateOf' | 'request'>;
      observations: Pick<Observations, 'entries' | 'registries'>;
      clock: Pick<Clock, 'now'>;
    },
  ) {
    this.#options = {
      maxAgeMs: DEFAULT_MAX_AGE_MS,
      walkTimeoutMs: DEFAULT_WALK_TIMEOUT_MS,
      ...options,
    };
    this.#store = dependencies.store;
    this.#integrity = dependencies.integrity;
    this.#observations = dependencies.observations;
    this.#clock = dependencies.clock;
    const reader = new ManifestReader({}, { store: dependencies.store });
    this.#walker = new ImageWalker({ reader });
  }

  /**
   * The inventory of this moment, or of a second ago; where a walk takes longer than a quarter of
   * that, of four times as long ago as one takes, at most a minute.
   *
   * @throws StoreUnavailableError, and an error when the walk takes too long or has been stopped
   */
  current(): Promise<NodeInventory> {
    const last = this.#last;
    if (last !== undefined && this.#isFresh(last)) return last.inventory;
    const beganMs = this.#clock.now();
    const inventory = this.#walk();
    // While it is under way nothing can be fresher.
    this.#last = { inventory, atMs: undefined, maxAgeMs: 0 };
    inventory.then(
      () => this.#finished(inventory, beganMs),
      () => {
        if (this.#last?.inventory === inventory) this.#last = undefined;
      },
    );
    return inventory;
  }

  /** Ends a walk that is under way. */
  stop(): void {
    this.#stopped.abort(new Error('Cannot walk the store: the agent stops'));
  }

  /** @param last.atMs when it was finished; undefined while it is under way */
  #isFresh(last: { readonly atMs: number | undefined; readonly maxAgeMs: number }): boolean {
    if (last.atMs === undefined) return true;
    const ageMs = this.#clock.now() - last.atMs;
    return ageMs >= 0 && ageMs < last.maxAgeMs;
  }

  #finished(inventory: Promise<NodeInventory>, beganMs: number): void {
    if (this.#last?.inventory !== inventory) return;
    const atMs = this.#clock.now();
    const restMs = REST_PER_WALK * Math.min(Math.max(atMs - beganMs, 0), MAX_REST_MS);
    this.#last = { inventory, atMs, maxAgeMs: Math.max(this.#options.maxAgeMs, restMs) };
  }

  async #walk(): Promise<NodeInventory> {
    const late = AbortSignal.timeout(this.#options.walkTimeoutMs);
    const signal = AbortSignal.any([this.#stopped.signal, late]);
    // Blobs first: what is committed meanwhile is missed, never taken for garbage.
    const held = await this.#listBlobs(signal);
    const survey = await this.#store.survey({ signal });
    const blobs = withRetention(held, survey.kept);
    const wrong = new Set<Digest>();
    const onWrong = (digest: Digest): void => {
      wrong.add(digest);
      this.#integrity.request(digest);
    };
    const observed = new Map<string, TagStatement>(this.#observations.entries());
    const targets = targetsOf(survey.images, observed.values(), blobs);
    const trees = await this.#trees(targets, {
      blobs,
      labels: survey.labels,
      onWrong,
      signal,
    });
    for (const digest of wrong) {
      const blob = blobs.get(digest);
      if (blob !== undefined) blobs.set(digest, { ...blob, isCorrupt: true, isVerified: false });
    }
    return {
      facts: this.#facts(survey, trees),
      blobs,
      images: imagesOf(survey, trees),
      trees,
      observed,
    };
  }

  async #listBlobs(signal: AbortSignal): Promise<Map<Digest, NodeBlob>> {
    const held = new Map<Digest, NodeBlob>();
    for await (const info of this.#store.blobs({ signal })) {
      const state = this.#integrity.stateOf(info);
      held.set(info.digest, {
        sizeBytes: info.sizeBytes,
        isVerified: state === 'verified',
        isCorrupt: state === 'corrupt',
        isKept: true,
      });
      if (held.size % BLOBS_A_TURN === 0) await breathe();
    }
    return held;
  }

  async #trees(
    targets: ReadonlyMap<Digest, Descriptor>,
    context: WalkContext,
  ): Promise<Map<Digest, ImageTree>> {
    const trees = new Map<Digest, ImageTree>();
    const waiting = targets.values();
    const work = async (): Promise<void> => {
      for (const target of waiting) {
        context.signal?.throwIfAborted();
        trees.set(target.digest, await this.#walker.walk(target, context));
        // Manifests that are known cost no waiting, and so would leave nobody else a turn.
        if (trees.size % WALKS_AT_A_TIME === 0) await breathe();
      }
    };
    await Promise.all(Array.from({ length: WALKS_AT_A_TIME }, work));
    return trees;
  }

  #facts(survey: StoreSurvey, trees: ReadonlyMap<Digest, ImageTree>): NodeFacts {
    const { runtimeVersion, snapshotter, warnings, labels } = survey;
    return {
      node: this.#options.node,
      store: this.#store.kind,
      runtimeVersion,
      snapshotter,
      discardsLayers: [...trees.values()].some((tree) => isDiscarded(tree, labels)),
      warnings,
      walkedAtMs: this.#clock.now(),
      registriesSeen: [...this.#observations.registries()],
    };
  }
}

/**
 * What is to be walked: the targets of images, and what tags were confirmed to name that is here and
 * stays, though the image of that name is gone. Nodes answer for both.
 */
function targetsOf(
  images: readonly SurveyedImage[],
  observed: Iterable<TagStatement>,
  blobs: ReadonlyMap<Digest, NodeBlob>,
): Map<Digest, Descriptor> {
  const targets = new Map<Digest, Descriptor>();
  for (const { digest, mediaType, sizeBytes } of observed) {
    const blob = blobs.get(digest);
    if (blob?.isKept === true && blob.sizeBytes === sizeBytes) {
      targets.set(digest, { digest, mediaType, sizeBytes });
    }
  }
  for (const image of images) {
    const found = targetOf(image);
    if ('target' in found) targets.set(found.target.digest, found.target);
  }
  return targets;
}

function withRetention(
  held: ReadonlyMap<Digest, NodeBlob>,
  kept: StoreSurvey['kept'],
): Map<Digest, NodeBlob> {
  const isKept = (digest: Digest): boolean => kept === 'everything' || kept.has(digest);
  return new Map(
    Array.from(held, ([digest, blob]) => [digest, { ...blob, isKept: isKept(digest) }]),
  );
}

function imagesOf(
  survey: StoreSurvey,
  trees: ReadonlyMap<Digest, ImageTree>,
): readonly InventoryImage[] {
  const used = new Set(
    survey.images.filter(({ name }) => survey.usedImages.has(name)).map((one) => one.target.digest),
  );
  return survey.images.map((image): InventoryImage => {
    const { name, recordedAtMs, observedAtMs } = image;
    const found = targetOf(image);
    // Whatever name a container was made by, it runs what all names of that target stand for.
    const isInUse = used.has(image.target.digest);
    if ('problem' in found) return { name, target: undefined, isInUse, problem: found.problem };
    const { digest, mediaType, sizeBytes } = found.target;
    const times = { recordedAtMs, ...(observedAtMs === undefined ? {} : { observedAtMs }) };
    const problem = trees.get(digest)?.problem;
    return {
      name,
      target: { digest, mediaType, sizeBytes, ...times },
      isInUse,
      ...(problem === undefined ? {} : { problem }),
    };
  });
}

/** containerd was told to let layers go after unpacking: it left their labels off a manifest. */
function isDiscarded(tree: ImageTree, labels: StoreSurvey['labels']): boolean {
  return tree.platforms.some(({ manifest, parts }) => {
    const own = labels.get(manifest);
    if (own === undefined || !parts.some(({ role }) => role === 'layer')) return false;
    const keys = Object.keys(own);
    return (
      keys.includes(`${CHILD_LABEL}config`) &&
      !keys.some((key) => key.startsWith(`${CHILD_LABEL}l.`))
    );
  });
}
