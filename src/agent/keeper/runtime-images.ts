import { parseDigest, type Digest } from '../../oci/digest.ts';
import { goArchitecture, platformMatches } from '../../oci/manifest.ts';
import {
  isServable,
  platformState,
  type ImageTree,
  type InventoryImage,
  type NodeInventory,
} from '../../rpc/inventory.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { StoreCallOptions } from '../store.ts';
import type { NodeImage, NodeImages } from './node-images.ts';

const host = { os: 'linux', architecture: goArchitecture(process.arch) };

/** The images of a containerd, each with what this machine's platform needs of it. */
export class RuntimeImages implements NodeImages {
  readonly #client: Pick<ContainerdClient, 'images'>;
  readonly #inventory: () => Promise<NodeInventory>;

  constructor(dependencies: {
    client: Pick<ContainerdClient, 'images'>;
    inventory: () => Promise<NodeInventory>;
  }) {
    this.#client = dependencies.client;
    this.#inventory = dependencies.inventory;
  }

  async targets(options: StoreCallOptions): Promise<ReadonlySet<Digest>> {
    const images = await this.#client.images(options);
    const targets = images.map(({ target }) => parseDigest(target?.digest ?? ''));
    return new Set(targets.flatMap((target) => (target.ok ? [target.value] : [])));
  }

  async list({ signal }: StoreCallOptions): Promise<readonly NodeImage[]> {
    const { images, trees, blobs } = await unlessAborted(this.#inventory(), signal);
    const found = new Map<Digest, InventoryImage[]>();
    for (const image of images) {
      const target = image.target?.digest;
      if (target === undefined) continue;
      const sameTarget = found.get(target);
      if (sameTarget === undefined) found.set(target, [image]);
      else sameTarget.push(image);
    }
    return Array.from(found, ([target, named]) => ({
      target,
      ...partsOf(trees.get(target), blobs),
      names: named.map(({ name }) => name).filter((name) => !name.startsWith('sha256:')),
      isInUse: named.some(({ isInUse }) => isInUse),
      usedAtMs: Math.max(...named.map((image) => image.target?.recordedAtMs ?? 0)),
    }));
  }
}

/** A walk is shared with others, so it goes on when one who waits for it leaves. */
async function unlessAborted<T>(result: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return result;
  signal.throwIfAborted();
  const left = Promise.withResolvers<never>();
  const leave = (): void => left.reject(signal.reason as Error);
  signal.addEventListener('abort', leave, { once: true });
  try {
    return await Promise.race([result, left.promise]);
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

/** What is there of an image for this platform; the rest of it is not this node's to keep. */
function partsOf(
  tree: ImageTree | undefined,
  blobs: NodeInventory['blobs'],
): Pick<NodeImage, 'blobs' | 'isComplete'> {
  const fitting = (tree?.platforms ?? []).filter(
    ({ platform }) => platform === undefined || platformMatches(platform, host),
  );
  const complete = fitting.filter((one) => platformState(one, blobs).state === 'complete');
  const isComplete = complete.length > 0;
  const held = new Map<Digest, number>();
  for (const { parts } of isComplete ? complete : fitting) {
    for (const part of parts) {
      if (isServable(part, blobs.get(part.digest))) held.set(part.digest, part.sizeBytes);
    }
  }
  return { blobs: held, isComplete };
}
