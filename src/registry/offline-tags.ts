import type { Platform } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { manifestFor, parseManifest, type Manifest } from '../oci/manifest.ts';
import { newestTag } from '../policy/newest-tag.ts';
import type { LocatedHolder } from '../rpc/agent-client.ts';
import type { ByteLease } from './byte-budget.ts';
import type { CachedManifest } from './manifest-cache.ts';
import type { Patience } from './patience.ts';
import type { FoundManifest, PeerManifests } from './peer-manifests.ts';
import type { HolderLookup } from './sources/holder-search.ts';
import { RecentTags, type RecentTag } from './recent-tags.ts';
import type { Peers } from './sources/peers.ts';
import type { Trace } from './trace.ts';
import type { Outage } from './upstream/upstream-health.ts';

/** A tag that can be answered without the upstream. */
export interface OfflineTag extends FoundManifest {
  /** When the upstream confirmed it; undefined where only a store's record says so. */
  readonly observedAtMs: number | undefined;
}

/** Why a tag cannot be answered. */
export interface NoOfflineTag {
  readonly reason: string;
}

/** How a tag is to be looked for. */
export interface ResolveOptions {
  /** Begins to look for the tag's name where that has not begun, with the same patience. */
  readonly search: () => HolderLookup;
  /** The outage that is on, if one is. */
  readonly outage: Outage | undefined;
  readonly signal: AbortSignal;
  readonly trace: Trace;
  /** With nodes that give no answer. */
  readonly patience: Patience;
  /** Pays for what is read. */
  readonly lease: Pick<ByteLease, 'hold'>;
  /** Whether this process has had an answer from the tag's registry. */
  readonly hasAnswered: boolean;
  /** How old the upstream's confirmation may be, milliseconds; 0: any age. */
  readonly maxAgeMs: number;
  /** Whom it must be complete for; this node unless told. */
  readonly platform?: Platform;
}

/** Answers tags from what nodes know, for an upstream that is proven not to answer. */
export class OfflineTags {
  readonly #platform: { readonly os: string; readonly architecture: string };
  readonly #peers: Peers;
  readonly #manifests: PeerManifests;
  readonly #now: () => number;
  readonly #recent = new RecentTags();

  /** @param options.platform what this node runs */
  constructor(
    options: { readonly platform: { readonly os: string; readonly architecture: string } },
    dependencies: { peers: Peers; manifests: PeerManifests; now?: () => number },
  ) {
    this.#platform = options.platform;
    this.#peers = dependencies.peers;
    this.#manifests = dependencies.manifests;
    this.#now = dependencies.now ?? Date.now;
  }

  /**
   * What a tag names by the newest statement, if its index, its manifest for this platform and its
   * config can be had. Never an older digest instead: that would start other software.
   */
  async resolve(name: string, options: ResolveOptions): Promise<OfflineTag | NoOfflineTag> {
    const { outage } = options;
    // A bound on the age of what may be used is kept to the millisecond.
    const isRecentEnough = outage !== undefined && options.maxAgeMs === 0;
    const recent = isRecentEnough ? this.#recent.get(name, outage) : undefined;
    const known = recent && (await this.#again(recent, options));
    if (known !== undefined) return known;
    const found = await this.#look(options);
    if (outage !== undefined && !('reason' in found)) this.#recent.put(name, outage, found);
    return found;
  }

  /** What a tag was found to name a moment ago, if it can still be had. */
  async #again(
    recent: RecentTag,
    { lease, signal, trace }: Pick<ResolveOptions, 'lease' | 'signal' | 'trace'>,
  ): Promise<OfflineTag | undefined> {
    const { digest, mediaType } = recent.manifest;
    const found = await this.#manifests.fetch(digest, { lease, signal, trace, mediaType });
    return found && { ...found, observedAtMs: recent.observedAtMs };
  }

  async #look(options: ResolveOptions): Promise<OfflineTag | NoOfflineTag> {
    const isSeen = (holders: readonly LocatedHolder[]): boolean =>
      options.hasAnswered || holders.some(({ registrySeen }) => registrySeen);
    const holders = await options
      .search()
      .all((some) => newestTag(some, this.#now()) !== undefined && isSeen(some));
    const tag = newestTag(holders, this.#now());
    if (tag === undefined) return { reason: 'no node knows what the tag names' };
    const { maxAgeMs } = options;
    const ageMs = this.#now() - (tag.observedAtMs ?? Number.NEGATIVE_INFINITY);
    if (maxAgeMs > 0 && ageMs > maxAgeMs) {
      return { reason: `what the tag named was confirmed longer than ${maxAgeMs} ms ago` };
    }
    // What has never worked is a mistake in the configuration, not an outage.
    if (!isSeen(holders)) {
      return { reason: 'its registry has never answered any node, so this is no outage' };
    }
    const found = await this.#manifests.fetch(tag.digest, {
      ...options,
      mediaType: tag.mediaType,
      likely: likelyHolder(holders, tag.digest),
    });
    if (found === undefined) return { reason: `no node can give the manifest ${tag.digest}` };
    const gap = await this.#gapIn(found.manifest, options);
    if (gap !== undefined) return { reason: `no node can give ${gap}` };
    return { ...found, observedAtMs: tag.observedAtMs };
  }

  async #gapIn(root: CachedManifest, options: ResolveOptions): Promise<string | undefined> {
    const parsed = parseManifest(root.bytes, root.mediaType);
    if (!parsed.ok) return `a manifest that can be read: ${parsed.reason}`;
    if (parsed.value.kind === 'image') return this.#configGap(parsed.value, options);
    const child = manifestFor(parsed.value, options.platform ?? this.#platform);
    // An index of something else than images for nodes: there is nothing more to require.
    if (child === undefined) return undefined;
    const found = await this.#manifests.fetch(child.digest, {
      ...options,
      mediaType: child.mediaType,
    });
    if (found === undefined) return `the manifest ${child.digest} for this platform`;
    const manifest = parseManifest(found.manifest.bytes, child.mediaType);
    return manifest.ok ? this.#configGap(manifest.value, options) : manifest.reason;
  }

  async #configGap(
    manifest: Manifest,
    options: Pick<ResolveOptions, 'patience' | 'signal'>,
  ): Promise<string | undefined> {
    const config = manifest.kind === 'image' ? manifest.config : undefined;
    if (config === undefined || (await this.#isHeld(config.digest, options))) return undefined;
    return `the config ${config.digest}`;
  }

  async #isHeld(
    digest: Digest,
    { patience, signal }: Pick<ResolveOptions, 'patience' | 'signal'>,
  ): Promise<boolean> {
    const search = this.#peers.search({ digest }, signal, patience);
    try {
      return (await search.next((holder) => this.#peers.accepts(digest, holder))) !== undefined;
    } finally {
      search.cancel();
    }
  }
}

/** Whoever says that a tag names it, as a holder of it: that node has most likely pulled it. */
function likelyHolder(
  holders: readonly LocatedHolder[],
  digest: Digest,
): LocatedHolder | undefined {
  for (const holder of holders) {
    const tag = holder.tags.find((one) => one.digest === digest);
    if (tag !== undefined && tag.sizeBytes > 0) return { ...holder, sizeBytes: tag.sizeBytes };
  }
  return undefined;
}
