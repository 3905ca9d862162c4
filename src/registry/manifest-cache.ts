import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';

/** A manifest's bytes, checked against its digest. */
export interface CachedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

interface Entry {
  readonly manifest: CachedManifest;
  /** "registry/repository credentials" → until when the upstream's consent counts. */
  readonly consents: Map<string, number>;
}

/** How many different credentials one manifest remembers. */
const MAX_CONSENTS = 64;
/** What an entry costs beside its bytes. */
const ENTRY_OVERHEAD_BYTES = 512;

/**
 * Manifests by digest, in memory, within a bound of bytes. While the upstream can be asked, an
 * entry is for those alone to whom the upstream itself gave it a short time ago.
 */
export class ManifestCache {
  readonly #entries: LRUCache<string, Entry>;
  readonly #consentMs: number;
  readonly #now: () => number;

  /**
   * @param options.maxBytes bound of all entries together
   * @param options.consentMs how long the upstream's consent counts, milliseconds
   */
  constructor(
    options: { readonly maxBytes: number; readonly consentMs: number },
    dependencies: { now?: () => number } = {},
  ) {
    this.#consentMs = options.consentMs;
    this.#now = dependencies.now ?? Date.now;
    this.#entries = new LRUCache({
      // No room at all is one byte, which no entry fits in.
      maxSize: Math.max(1, options.maxBytes),
      sizeCalculation: ({ manifest }) => manifest.bytes.length + ENTRY_OVERHEAD_BYTES,
    });
  }

  /** @param consent who may have it from now on; undefined when the upstream did not say */
  put(manifest: CachedManifest, consent?: { repository: string; credentials: string }): void {
    const entry = this.#entries.get(manifest.digest) ?? { manifest, consents: new Map() };
    if (consent !== undefined) {
      if (entry.consents.size >= MAX_CONSENTS) entry.consents.clear();
      const key = `${consent.repository} ${consent.credentials}`;
      entry.consents.set(key, this.#now() + this.#consentMs);
    }
    this.#entries.set(manifest.digest, entry);
  }

  /** Whatever is known of the digest, no matter who asks: for when the upstream cannot be asked. */
  get(digest: Digest): CachedManifest | undefined {
    return this.#entries.get(digest)?.manifest;
  }

  /** The manifest, if the upstream gave it to these credentials in this repository lately. */
  getConsented(
    digest: Digest,
    consent: { repository: string; credentials: string },
  ): CachedManifest | undefined {
    const entry = this.#entries.get(digest);
    const untilMs = entry?.consents.get(`${consent.repository} ${consent.credentials}`) ?? 0;
    return untilMs > this.#now() ? entry?.manifest : undefined;
  }

  has(digest: Digest): boolean {
    return this.#entries.has(digest);
  }
}
