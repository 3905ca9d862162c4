import type { Platform } from '../../../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../src/oci/media-type.ts';
import { DEFAULT_POLICY, type PullPolicy } from '../../../src/policy/policy.ts';
import { buildReport } from '../../../src/report/build-report.ts';
import { ClusterContent } from '../../../src/report/cluster-content.ts';
import type { Report, ReportImage } from '../../../src/report/report.ts';
import type { ReportRules } from '../../../src/report/verdict.ts';
import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';
import type {
  ImagePart,
  ImageTree,
  InventoryImage,
  NodeBlob,
  NodeInventory,
  PlatformTree,
} from '../../../src/rpc/inventory.ts';

export const NOW_MS = Date.UTC(2026, 5, 1);
export const DAY_MS = 86_400_000;
export const amd64: Platform = { os: 'linux', architecture: 'amd64' };
export const arm64: Platform = { os: 'linux', architecture: 'arm64' };

export const digest = (text: string): Digest => digestOf(Buffer.from(text));

export function part(role: ImagePart['role'], text: string, sizeBytes = 10): ImagePart {
  return { role, digest: digest(text), sizeBytes, isForeign: false };
}

/** An index with one platform each; what they consist of is called "<name> layer 1" and so on. */
export function indexOf(name: string, platforms: readonly Platform[] = [amd64]): ImageTree {
  const index = part('index', `${name} index`);
  return {
    root: index.digest,
    mediaType: MEDIA_TYPE.ociIndex,
    sizeBytes: index.sizeBytes,
    platforms: platforms.map((platform) => {
      const own = platforms.length === 1 ? name : `${name} ${platform.architecture}`;
      return {
        platform,
        isDeclared: true,
        manifest: digest(`${own} manifest`),
        parts: [
          index,
          part('manifest', `${own} manifest`),
          part('config', `${own} config`),
          part('layer', `${own} layer 1`),
          part('layer', `${own} layer 2`),
        ],
        isRead: true,
      };
    }),
  };
}

/** What a node has. */
export class Node {
  readonly #name: string;
  readonly #blobs = new Map<Digest, NodeBlob>();
  readonly #images: InventoryImage[] = [];
  readonly #trees = new Map<Digest, ImageTree>();
  readonly #observed = new Map<string, TagStatement>();
  readonly #seen = new Set<string>();

  constructor(name: string) {
    this.#name = name;
  }

  /** Has an image: all of it, unless some parts are left out by their names. */
  image(
    name: string,
    tree: ImageTree,
    options: { without?: string[]; inUse?: boolean } = {},
  ): this {
    const { inUse = false, without = [] } = options;
    this.#trees.set(tree.root, tree);
    const { mediaType, root, sizeBytes } = tree;
    const target = { digest: root, mediaType, sizeBytes, recordedAtMs: NOW_MS - DAY_MS };
    this.#images.push({ name, target, isInUse: inUse });
    const absent = new Set(without.map(digest));
    for (const { parts } of tree.platforms) {
      for (const one of parts) if (!absent.has(one.digest)) this.hold(one.digest, {});
    }
    return this;
  }

  /** Has an image of which nothing can be said. */
  oddImage(name: string, problem: string): this {
    this.#images.push({ name, target: undefined, isInUse: false, problem });
    return this;
  }

  /** Its images are removed, and what belongs to them is kept. */
  forgetNames(): this {
    this.#images.length = 0;
    return this;
  }

  hold(what: string, state: Partial<NodeBlob>): this {
    const key = what.startsWith('sha256:') ? (what as Digest) : digest(what);
    const blob = { sizeBytes: 10, isVerified: true, isCorrupt: false, isKept: true };
    this.#blobs.set(key, { ...blob, ...state });
    return this;
  }

  lose(...names: string[]): this {
    for (const name of names) this.#blobs.delete(digest(name));
    return this;
  }

  /** Its registry has seen the upstream confirm what a tag names. */
  observe(name: string, tree: Pick<ImageTree, 'root'>, ageMs = DAY_MS): this {
    const observedAtMs = NOW_MS - ageMs;
    const statement = { mediaType: MEDIA_TYPE.ociIndex, sizeBytes: 10, observedAtMs };
    this.#observed.set(name, { digest: tree.root, ...statement });
    this.#seen.add(name.slice(0, name.indexOf('/')));
    return this;
  }

  seeRegistry(registry: string): this {
    this.#seen.add(registry);
    return this;
  }

  inventory(): NodeInventory {
    return {
      facts: {
        node: this.#name,
        store: 'containerd',
        runtimeVersion: '2.2.0',
        snapshotter: 'overlayfs',
        discardsLayers: false,
        warnings: [],
        walkedAtMs: NOW_MS,
        registriesSeen: [...this.#seen],
      },
      blobs: this.#blobs,
      images: this.#images,
      trees: this.#trees,
      observed: this.#observed,
    };
  }
}

/** What the registries of these tests go by. */
export function rules(
  policy: Partial<PullPolicy> = {},
  more: Partial<ReportRules> = {},
): ReportRules {
  return {
    policyFor: () => ({ ...DEFAULT_POLICY, ...policy }),
    allowsRegistry: () => true,
    maxManifestBytes: 1_000_000,
    ...more,
  };
}

/** The report about these nodes. */
export async function reportOf(nodes: readonly Node[], by = rules()): Promise<Report> {
  const content = new ClusterContent();
  for (const node of nodes) content.add(node.inventory());
  return buildReport(content, by, { members: [], takenAtMs: NOW_MS, tookMs: () => 1 });
}

/** The one image of a report that has no other. */
export function only({ images }: Report): ReportImage {
  const [image, ...others] = images;
  if (image === undefined || others.length > 0) {
    throw new Error(`Cannot take the only image: ${images.map((one) => one.image).join(', ')}`);
  }
  return image;
}

/** A tree of which only what the index says is known. */
export function unread(tree: ImageTree): ImageTree {
  const shorten = (platform: PlatformTree): PlatformTree => ({
    ...platform,
    parts: platform.parts.slice(0, 2),
    isRead: false,
  });
  return { ...tree, platforms: tree.platforms.map(shorten) };
}
