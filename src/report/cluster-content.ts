import type { Digest } from '../oci/digest.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import {
  isServable,
  type ImagePart,
  type ImageTree,
  type NodeBlob,
  type NodeInventory,
  type PlatformTree,
} from '../rpc/inventory.ts';

/** Where a part of an image is, by nodes' names. */
export interface PartHolders {
  /** They have it, it is right as far as they know, and something keeps it. */
  readonly kept: readonly string[];
  /** The same, but the next garbage collection takes it. */
  readonly passing: readonly string[];
  /** What they have is known to be wrong, or has not the right size. */
  readonly corrupt: readonly string[];
}

/** A name in a node's store. */
export interface NamedImage {
  readonly node: string;
  readonly target: TagStatement | undefined;
  readonly isInUse: boolean;
  readonly problem?: string;
}

/** A tree as all nodes together know it. */
interface MergedTree extends Omit<ImageTree, 'platforms'> {
  readonly platforms: Map<Digest, PlatformTree>;
}

/** What all nodes have, put together: a pull needs blobs, wherever they are. */
export class ClusterContent {
  readonly #inventories = new Map<string, NodeInventory>();
  readonly #copies = new Map<Digest, { readonly node: string; readonly blob: NodeBlob }[]>();
  readonly #trees = new Map<Digest, MergedTree>();
  /** By manifest: whatever image it was read for. */
  readonly #read = new Map<Digest, PlatformTree>();
  readonly #names = new Map<string, NamedImage[]>();
  readonly #registriesSeen = new Set<string>();

  /** What one node has. A node counts once. */
  add(inventory: NodeInventory): void {
    const { facts, images, trees } = inventory;
    this.#inventories.set(facts.node, inventory);
    for (const [digest, blob] of inventory.blobs) {
      const copies = this.#copies.get(digest);
      if (copies === undefined) this.#copies.set(digest, [{ node: facts.node, blob }]);
      else copies.push({ node: facts.node, blob });
    }
    for (const registry of facts.registriesSeen) this.#registriesSeen.add(registry);
    for (const { name, ...image } of images) {
      const known = this.#names.get(name);
      const entry = { node: facts.node, ...image };
      if (known === undefined) this.#names.set(name, [entry]);
      else known.push(entry);
    }
    for (const tree of trees.values()) this.#addTree(tree);
  }

  /** What a node has; undefined when it was not added. */
  inventory(node: string): NodeInventory | undefined {
    return this.#inventories.get(node);
  }

  /** Every name that some node's store has, and every tag that was confirmed to name what is here. */
  names(): Set<string> {
    const names = new Set(this.#names.keys());
    for (const { observed } of this.#inventories.values()) {
      // A last copy has no name any more where it is kept, and perhaps nowhere.
      for (const [name, { digest }] of observed) {
        if (this.#trees.has(digest)) names.add(name);
      }
    }
    return names;
  }

  /** The nodes that have an image of this name. */
  images(name: string): readonly NamedImage[] {
    return this.#names.get(name) ?? [];
  }

  /**
   * What the nodes would answer for a tag: what the upstream confirmed, and what the stores say
   * whose target is there.
   */
  statements(name: string): TagStatement[] {
    const observed = [...this.#inventories.values()].flatMap(
      (inventory) => inventory.observed.get(name) ?? [],
    );
    const recorded = this.images(name).flatMap(({ node, target }) =>
      target !== undefined && this.#holdsTarget(node, target) ? [target] : [],
    );
    return [...observed, ...recorded];
  }

  /** Whether the registry has answered some node. */
  hasSeenRegistry(registry: string): boolean {
    return this.#registriesSeen.has(registry);
  }

  /** What a digest leads to; undefined when no image points at it. */
  tree(root: Digest): ImageTree | undefined {
    const tree = this.#trees.get(root);
    if (tree === undefined) return undefined;
    const platforms = Array.from(tree.platforms.values(), (one) => this.#completed(one));
    return { ...tree, platforms };
  }

  /** Who has a part. */
  holders(part: ImagePart): PartHolders {
    const holders = { kept: [] as string[], passing: [] as string[], corrupt: [] as string[] };
    for (const { blob, node } of this.#copies.get(part.digest) ?? []) {
      if (!isServable(part, blob)) holders.corrupt.push(node);
      else if (blob.isKept) holders.kept.push(node);
      else holders.passing.push(node);
    }
    return holders;
  }

  #holdsTarget(node: string, target: TagStatement): boolean {
    return this.inventory(node)?.blobs.get(target.digest)?.sizeBytes === target.sizeBytes;
  }

  #addTree(tree: ImageTree): void {
    const known = this.#trees.get(tree.root);
    const platforms = known?.platforms ?? new Map<Digest, PlatformTree>();
    for (const platform of tree.platforms) {
      const { manifest } = platform;
      const other = platforms.get(manifest);
      if (other === undefined || isBetter(platform, other)) platforms.set(manifest, platform);
      if (platform.isRead && !this.#read.has(manifest)) this.#read.set(manifest, platform);
    }
    // A node that could read the index knows more than one that could not.
    if (known === undefined || (known.problem !== undefined && tree.problem === undefined)) {
      this.#trees.set(tree.root, { ...tree, platforms });
    }
  }

  /** A manifest that only another image's nodes could read says the same here. */
  #completed(tree: PlatformTree): PlatformTree {
    const other = tree.isRead ? undefined : this.#read.get(tree.manifest);
    if (other === undefined) return tree;
    const own = tree.parts.filter(({ role }) => role === 'index');
    const rest = other.parts.filter(({ role }) => role !== 'index');
    const { isDeclared, platform = other.platform } = tree;
    return { ...other, platform, isDeclared, parts: [...own, ...rest] };
  }
}

function isBetter(one: PlatformTree, other: PlatformTree): boolean {
  if (one.isRead !== other.isRead) return one.isRead;
  return one.lazySnapshotter !== undefined && other.lazySnapshotter === undefined;
}
