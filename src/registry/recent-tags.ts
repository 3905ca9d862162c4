import { LRUCache } from 'lru-cache';
import type { CachedManifest } from './manifest-cache.ts';
import type { Outage } from './upstream/upstream-health.ts';

/** How long it is taken for true that nodes can give a tag, milliseconds. */
const FRESH_MS = 1000;
const MAX_REMEMBERED = 1000;

/** What a tag was found to name; the manifest itself is kept elsewhere, within a bound of bytes. */
export interface RecentTag {
  readonly manifest: Pick<CachedManifest, 'digest' | 'mediaType'>;
  /** When the upstream confirmed it; undefined where only a store's record says so. */
  readonly observedAtMs: number | undefined;
}

interface Entry extends RecentTag {
  readonly outageSinceMs: number;
  readonly foundAtMs: number;
}

/**
 * What tags were found to name in an outage that is on. Many clients that want the same tag, one
 * after the other, would else have every node asked for it every time.
 */
export class RecentTags {
  readonly #entries = new LRUCache<string, Entry>({ max: MAX_REMEMBERED });
  readonly #now: () => number;

  constructor(dependencies: { now?: () => number } = {}) {
    this.#now = dependencies.now ?? (() => performance.now());
  }

  /**
   * @param name "registry/repository:tag"
   * @param outage the one that is on; what was found in an earlier one no longer counts
   */
  get(name: string, outage: Pick<Outage, 'sinceMs'>): RecentTag | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    const isFresh = this.#now() - entry.foundAtMs < FRESH_MS;
    return isFresh && entry.outageSinceMs === outage.sinceMs ? entry : undefined;
  }

  /** Nodes were asked just now, and can give all that the tag needs. */
  put(name: string, outage: Pick<Outage, 'sinceMs'>, tag: RecentTag): void {
    const { manifest, observedAtMs } = tag;
    this.#entries.set(name, {
      manifest: { digest: manifest.digest, mediaType: manifest.mediaType },
      observedAtMs,
      outageSinceMs: outage.sinceMs,
      foundAtMs: this.#now(),
    });
  }
}
