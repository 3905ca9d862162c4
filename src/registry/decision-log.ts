import { parseDigest } from '../oci/digest.ts';
import { parseReference } from '../oci/reference.ts';
import type { Attempt } from './trace.ts';

/** One request and what became of it, for people who ask why. */
export interface Decision {
  /** ISO 8601. */
  readonly at: string;
  readonly method: string;
  /** "manifest" or "blob". */
  readonly kind: string;
  readonly registry: string;
  readonly repository: string;
  /** The tag or digest that was asked for. */
  readonly reference: string;
  readonly status: number;
  /** In a word, as in the log: "upstream", "peer", "offline_tag", "unavailable" … */
  readonly decision: string;
  /** Who served it: "upstream", "memory", "node/<name>", several with commas between. */
  readonly source: string;
  /** What was wrong with the upstream, where nodes or memory stood in for it. */
  readonly fallback?: string;
  /** What was tried before, in order. */
  readonly tried: readonly Attempt[];
  /** How the body ended. */
  readonly end: string;
  readonly bytes: number;
  readonly headersMs: number;
  readonly totalMs: number;
  /** What the client was told, where it was an error. */
  readonly error?: string;
}

/** The last so many decisions, in memory. */
export class DecisionLog {
  readonly #maxEntries: number;
  readonly #entries: Decision[] = [];
  readonly #startedAt = new Date().toISOString();
  #next = 0;

  /** @param options.maxEntries how many are kept; older ones give way */
  constructor(options: { readonly maxEntries: number }) {
    this.#maxEntries = options.maxEntries;
  }

  add(decision: Decision): void {
    this.#entries[this.#next] = decision;
    this.#next = (this.#next + 1) % this.#maxEntries;
  }

  /** What is remembered begins then, ISO 8601. */
  get since(): string {
    const oldest = this.#entries[this.#next];
    return this.#entries.length < this.#maxEntries ? this.#startedAt : (oldest?.at ?? '');
  }

  /**
   * What was decided about something, the newest first.
   *
   * @param about an image reference as people write it, or a digest; empty: everything
   */
  find(about: string): Decision[] {
    const matches = matcher(about);
    const ordered = [...this.#entries.slice(this.#next), ...this.#entries.slice(0, this.#next)];
    return ordered.reverse().filter(matches);
  }
}

function matcher(about: string): (decision: Decision) => boolean {
  if (about === '') return () => true;
  const digest = parseDigest(about);
  if (digest.ok) return ({ reference }) => reference === digest.value;
  const parsed = parseReference(about);
  if (!parsed.ok) return () => false;
  const { registry, repository, tag, digest: wanted } = parsed.value;
  // A name without a tag is about everything in the repository.
  const isWhole = wanted === undefined && !about.endsWith(`:${tag}`);
  return (decision) =>
    decision.registry === registry &&
    decision.repository === repository &&
    (isWhole || decision.reference === (wanted ?? tag));
}
