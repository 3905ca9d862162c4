import { digestAlgorithm, digestOf, type Digest } from '../oci/digest.ts';
import { parseManifest } from '../oci/manifest.ts';
import type { LocatedHolder, LocateSummary } from '../rpc/agent-client.ts';
import { outcomeOf } from './blob-fetch.ts';
import { BusyError, type ByteBudget, type ByteLease } from './byte-budget.ts';
import type { CachedManifest, ManifestCache } from './manifest-cache.ts';
import type { Patience } from './patience.ts';
import { readWhole } from './read-whole.ts';
import type { Peers } from './sources/peers.ts';
import { SourceError, type OpenedBody } from './sources/source.ts';
import type { Trace } from './trace.ts';

/** A manifest and where it came from. */
export interface FoundManifest {
  readonly manifest: CachedManifest;
  /** "memory" or "node/<name>". */
  readonly source: string;
}

/** Manifests from the content stores of nodes, each checked against its digest. */
export class PeerManifests {
  readonly #options: { readonly maxBytes: number; readonly stallMs: number };
  readonly #peers: Peers;
  readonly #cache: ManifestCache;
  readonly #budget: Pick<ByteBudget, 'open'>;

  constructor(
    options: { readonly maxBytes: number; readonly stallMs: number },
    dependencies: { peers: Peers; cache: ManifestCache; budget: Pick<ByteBudget, 'open'> },
  ) {
    this.#options = options;
    this.#peers = dependencies.peers;
    this.#cache = dependencies.cache;
    this.#budget = dependencies.budget;
  }

  /**
   * Fetches a manifest from memory or from whichever node gives the right bytes. To be used only
   * when access does not depend on the upstream's word.
   *
   * @param options.mediaType what the upstream once said; else the document tells
   * @param options.onSummary told how many nodes were asked, when none of them could help
   * @param options.lease pays for the manifest from then on
   * @returns undefined when no node has it
   * @throws BusyError when there is no memory for it
   */
  async fetch(
    digest: Digest,
    options: {
      readonly signal: AbortSignal;
      readonly trace: Trace;
      readonly lease: Pick<ByteLease, 'hold'>;
      /** With nodes that give no answer; none unless told. */
      readonly patience?: Patience | undefined;
      readonly mediaType?: string;
      /** Asked before it is known who has the manifest: whoever named it most likely does. */
      readonly likely?: LocatedHolder | undefined;
      readonly onSummary?: (summary: LocateSummary | undefined) => void;
    },
  ): Promise<FoundManifest | undefined> {
    const known = this.#cache.get(digest);
    if (known !== undefined) {
      options.lease.hold(known.bytes);
      return { manifest: known, source: 'memory' };
    }
    const { likely, signal } = options;
    const tried = new Set<string>();
    if (likely !== undefined && this.#peers.accepts(digest, likely)) {
      const found = await this.#from(likely, digest, options);
      if ('manifest' in found) return found;
      // Else it may well be found again: the tag may have a wrong size, the node just come back.
      if (['timeout', 'stalled'].includes(found.outcome)) tried.add(likely.node);
    }
    const search = this.#peers.search({ digest }, signal, options.patience);
    try {
      for (;;) {
        const holder = await search.next(
          (one) => !tried.has(one.node) && this.#peers.accepts(digest, one),
        );
        if (holder === undefined || signal.aborted) {
          options.onSummary?.(search.summary);
          return undefined;
        }
        tried.add(holder.node);
        const found = await this.#from(holder, digest, options);
        if ('manifest' in found) return found;
      }
    } finally {
      search.cancel();
    }
  }

  /** @returns why, when this node does not give it */
  async #from(
    holder: LocatedHolder,
    digest: Digest,
    options: {
      readonly signal: AbortSignal;
      readonly trace: Trace;
      readonly lease: Pick<ByteLease, 'hold'>;
      readonly mediaType?: string;
    },
  ): Promise<FoundManifest | { readonly outcome: string }> {
    const source = this.#peers.source(holder);
    const note = options.trace.begin(source.label);
    try {
      const { signal } = options;
      const body = await source.open(digest, { start: 0 }, { signal, hashed: true });
      const manifest = await this.#read(digest, body, options);
      this.#cache.put(manifest);
      note('ok');
      return { manifest, source: source.label };
    } catch (error) {
      const outcome = outcomeOf(error);
      note(outcome);
      if (error instanceof BusyError) throw error;
      if (outcome === 'wrong_bytes') this.#peers.reportCorrupt(digest, holder);
      return { outcome };
    }
  }

  async #read(
    digest: Digest,
    body: OpenedBody,
    options: { readonly mediaType?: string; readonly lease: Pick<ByteLease, 'hold'> },
  ): Promise<CachedManifest> {
    const { lease, mediaType } = options;
    const bytes = await readWhole(body, { ...this.#options, budget: this.#budget, lease });
    if (digestOf(bytes, digestAlgorithm(digest)) !== digest) {
      throw new SourceError('wrong_bytes', `${body.source} gave wrong bytes for ${digest}`);
    }
    const stated = parseManifest(bytes, mediaType);
    if (stated.ok) return { digest, mediaType: mediaType ?? stated.value.mediaType, bytes };
    // The bytes are right, so what they say of themselves counts more than what was said of them.
    const manifest = parseManifest(bytes);
    if (!manifest.ok) throw new SourceError('no_manifest', manifest.reason);
    return { digest, mediaType: manifest.value.mediaType, bytes };
  }
}
