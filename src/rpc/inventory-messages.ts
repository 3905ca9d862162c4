import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import type { Platform } from '../oci/descriptor.ts';
import { parseDigest, type Digest } from '../oci/digest.ts';
import { safeNumber, tagFromMessage, tagToMessage, type TagStatement } from './agent-protocol.ts';
import {
  InventoryResponseSchema,
  type InventoryBlob,
  type InventoryFacts,
  type InventoryPlatform,
  type InventoryResponse,
  type InventoryTree,
} from './gen/salvor/agent/v1/agent_pb.ts';
import type {
  ImagePart,
  ImageTree,
  InventoryImage,
  NodeBlob,
  NodeFacts,
  NodeInventory,
  PlatformTree,
} from './inventory.ts';

/** How many of each go into one message: about 100 KB of any. */
const BLOBS_A_MESSAGE = 1000;
const NAMES_A_MESSAGE = 400;
const PARTS_A_MESSAGE = 10_000;
/** More than any node has; a peer that says more is not believed. */
const MAX_ENTRIES = 2_000_000;

/** An inventory as the messages of a stream, each of bounded size. */
export function* inventoryMessages(inventory: NodeInventory): Generator<InventoryResponse> {
  yield create(InventoryResponseSchema, { facts: factsToMessage(inventory.facts) });
  const places = new Map<Digest, number>();
  const digests = allDigests(inventory);
  for (const batch of batches(digests, () => 1, BLOBS_A_MESSAGE)) {
    for (const digest of batch) places.set(digest, places.size);
    const blobs = batch.map((digest) => blobToMessage(digest, inventory.blobs.get(digest)));
    yield create(InventoryResponseSchema, { blobs });
  }
  for (const batch of batches(inventory.images, () => 1, NAMES_A_MESSAGE)) {
    yield create(InventoryResponseSchema, { images: batch.map(imageToMessage) });
  }
  for (const batch of batches(inventory.trees.values(), sizeOfTree, PARTS_A_MESSAGE)) {
    yield create(InventoryResponseSchema, {
      trees: batch.map((tree) => treeToMessage(tree, places)),
    });
  }
  for (const batch of batches(inventory.observed, () => 1, NAMES_A_MESSAGE)) {
    const observed = batch.map(([name, tag]) => ({ name, tag: tagToMessage(tag) }));
    yield create(InventoryResponseSchema, { observed });
  }
  yield create(InventoryResponseSchema, { complete: true });
}

/**
 * Puts the messages of a stream together.
 *
 * @throws what the stream throws, and an error when it ends too early, makes no sense, or has more
 *   entries than any node could
 */
export async function readInventory(
  messages: AsyncIterable<InventoryResponse>,
): Promise<NodeInventory> {
  const reader = new InventoryReader();
  for await (const message of messages) reader.add(message);
  return reader.finish();
}

class InventoryReader {
  #facts: NodeFacts | undefined;
  readonly #places: Digest[] = [];
  readonly #blobs = new Map<Digest, NodeBlob>();
  readonly #images: InventoryImage[] = [];
  readonly #trees = new Map<Digest, ImageTree>();
  readonly #observed = new Map<string, TagStatement>();
  #entries = 0;
  #isComplete = false;

  add(message: InventoryResponse): void {
    const { facts, blobs, images, trees, observed } = message;
    if (facts !== undefined) this.#facts = factsFromMessage(facts);
    this.#count(blobs.length + images.length + trees.length + observed.length);
    for (const blob of blobs) this.#addBlob(blob);
    for (const { name, target, inUse, problem } of images) {
      this.#images.push({
        name,
        target: target === undefined ? undefined : tagFromMessage(target),
        isInUse: inUse,
        ...(problem === '' ? {} : { problem }),
      });
    }
    for (const tree of trees) this.#addTree(tree);
    for (const { name, tag } of observed) {
      const statement = tag === undefined ? undefined : tagFromMessage(tag);
      if (statement !== undefined) this.#observed.set(name, statement);
    }
    this.#isComplete ||= message.complete;
  }

  finish(): NodeInventory {
    if (this.#facts === undefined || !this.#isComplete) {
      throw new Error('Cannot use the inventory: the stream ended too early');
    }
    return {
      facts: this.#facts,
      blobs: this.#blobs,
      images: this.#images,
      trees: this.#trees,
      observed: this.#observed,
    };
  }

  #addBlob(message: InventoryBlob): void {
    const digest = parseDigest(message.digest);
    if (!digest.ok) throw new Error(`Cannot use the inventory: ${digest.reason}`);
    this.#places.push(digest.value);
    if (!message.held) return;
    this.#blobs.set(digest.value, {
      sizeBytes: safeNumber(message.sizeBytes),
      isVerified: message.verified,
      isCorrupt: message.corrupt,
      isKept: !message.passing,
    });
  }

  #addTree(message: InventoryTree): void {
    const root = this.#at(message.root);
    const { mediaType, problem } = message;
    this.#count(message.platforms.reduce((sum, { parts }) => sum + parts.length, 0));
    this.#trees.set(root, {
      root,
      mediaType,
      sizeBytes: safeNumber(message.sizeBytes),
      platforms: message.platforms.map((platform) => this.#platform(platform)),
      ...(problem === '' ? {} : { problem }),
    });
  }

  #platform(message: InventoryPlatform): PlatformTree {
    const { declared, hasConfig, indexes, problem, lazySnapshotter } = message;
    const foreign = new Set(message.foreign);
    const parts = message.parts.map((place, index): ImagePart => {
      const isConfig = hasConfig && index === indexes + 1;
      return {
        role:
          index < indexes
            ? 'index'
            : index === indexes
              ? 'manifest'
              : isConfig
                ? 'config'
                : 'layer',
        digest: this.#at(place),
        sizeBytes: safeNumber(message.partSizes[index] ?? -1n),
        isForeign: foreign.has(index),
      };
    });
    const manifest = parts[indexes]?.digest;
    if (manifest === undefined) throw new Error('Cannot use the inventory: no manifest');
    return {
      platform: platformFrom(message),
      isDeclared: declared,
      manifest,
      parts,
      isRead: message.read,
      ...(problem === '' ? {} : { problem }),
      ...(lazySnapshotter === '' ? {} : { lazySnapshotter }),
    };
  }

  #at(place: number): Digest {
    const digest = this.#places[place];
    if (digest === undefined) throw new Error('Cannot use the inventory: a blob is not listed');
    return digest;
  }

  #count(entries: number): void {
    this.#entries += entries;
    if (this.#entries > MAX_ENTRIES) {
      throw new Error(`Cannot use the inventory: more than ${MAX_ENTRIES} entries`);
    }
  }
}

function platformFrom(message: InventoryPlatform): Platform | undefined {
  const { os, architecture, variant, osVersion } = message;
  if (os === '' && architecture === '') return undefined;
  return {
    os,
    architecture,
    ...(variant === '' ? {} : { variant }),
    ...(osVersion === '' ? {} : { osVersion }),
  };
}

function allDigests({ blobs, trees }: NodeInventory): Set<Digest> {
  const digests = new Set(blobs.keys());
  for (const { root, platforms } of trees.values()) {
    digests.add(root);
    for (const { parts } of platforms) for (const { digest } of parts) digests.add(digest);
  }
  return digests;
}

function sizeOfTree({ platforms }: ImageTree): number {
  return 1 + platforms.reduce((sum, { parts }) => sum + 2 + parts.length, 0);
}

function* batches<T>(
  entries: Iterable<T>,
  weightOf: (entry: T) => number,
  maxWeight: number,
): Generator<T[]> {
  let batch: T[] = [];
  let weight = 0;
  for (const entry of entries) {
    batch.push(entry);
    weight += weightOf(entry);
    if (weight < maxWeight) continue;
    yield batch;
    batch = [];
    weight = 0;
  }
  if (batch.length > 0) yield batch;
}

type Init<S extends Parameters<typeof create>[0]> = MessageInitShape<S>;
type ResponseInit = Init<typeof InventoryResponseSchema>;
type Entry<K extends keyof ResponseInit> =
  NonNullable<ResponseInit[K]> extends readonly (infer E)[] ? E : never;

function factsToMessage(facts: NodeFacts): NonNullable<ResponseInit['facts']> {
  return {
    node: facts.node,
    store: facts.store,
    runtimeVersion: facts.runtimeVersion,
    snapshotter: facts.snapshotter,
    discardsLayers: facts.discardsLayers,
    warnings: facts.warnings.map(({ code, message }) => ({ code, message })),
    walkedAt: timestampFromMs(facts.walkedAtMs),
    registriesSeen: [...facts.registriesSeen],
  };
}

function factsFromMessage(facts: InventoryFacts): NodeFacts {
  const { node, store, runtimeVersion, snapshotter, discardsLayers, registriesSeen } = facts;
  return {
    node,
    store,
    runtimeVersion,
    snapshotter,
    discardsLayers,
    warnings: facts.warnings.map(({ code, message }) => ({ code, message })),
    walkedAtMs: facts.walkedAt === undefined ? 0 : timestampMs(facts.walkedAt),
    registriesSeen,
  };
}

function blobToMessage(digest: Digest, blob: NodeBlob | undefined): Entry<'blobs'> {
  if (blob === undefined) return { digest };
  const { sizeBytes, isVerified, isCorrupt, isKept } = blob;
  return {
    digest,
    sizeBytes: BigInt(sizeBytes),
    held: true,
    verified: isVerified,
    corrupt: isCorrupt,
    passing: !isKept,
  };
}

function imageToMessage({ name, target, isInUse, problem = '' }: InventoryImage): Entry<'images'> {
  return {
    name,
    inUse: isInUse,
    problem,
    ...(target === undefined ? {} : { target: tagToMessage(target) }),
  };
}

function treeToMessage(tree: ImageTree, places: ReadonlyMap<Digest, number>): Entry<'trees'> {
  const placeOf = (digest: Digest): number => places.get(digest) ?? 0;
  return {
    root: placeOf(tree.root),
    mediaType: tree.mediaType,
    sizeBytes: BigInt(tree.sizeBytes),
    problem: tree.problem ?? '',
    platforms: tree.platforms.map(({ platform, parts, ...rest }) => ({
      os: platform?.os ?? '',
      architecture: platform?.architecture ?? '',
      variant: platform?.variant ?? '',
      osVersion: platform?.osVersion ?? '',
      declared: rest.isDeclared,
      parts: parts.map(({ digest }) => placeOf(digest)),
      partSizes: parts.map(({ sizeBytes }) => BigInt(sizeBytes)),
      indexes: parts.filter(({ role }) => role === 'index').length,
      read: rest.isRead,
      hasConfig: parts.some(({ role }) => role === 'config'),
      foreign: parts.flatMap(({ isForeign }, index) => (isForeign ? [index] : [])),
      problem: rest.problem ?? '',
      lazySnapshotter: rest.lazySnapshotter ?? '',
    })),
  };
}
