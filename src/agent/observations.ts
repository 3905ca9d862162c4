import { LRUCache } from 'lru-cache';
import type { TagStatement } from '../rpc/agent-protocol.ts';

/**
 * What the upstream confirmed about tags, as this node's registry saw it: the only honest basis
 * for answering tags when the upstream cannot be asked.
 */
export class Observations {
  readonly #byName: LRUCache<string, TagStatement>;

  /** @param options.maxNames how many names are remembered; the oldest use goes first */
  constructor(options: { readonly maxNames: number }) {
    this.#byName = new LRUCache({ max: options.maxNames });
  }

  /**
   * Keeps a statement unless a later one is known already: answers may overtake each other.
   *
   * @param name "registry/repository:tag"
   */
  record(name: string, tag: TagStatement & { readonly observedAtMs: number }): void {
    const known = this.#byName.get(name)?.observedAtMs ?? 0;
    if (tag.observedAtMs >= known) this.#byName.set(name, tag);
  }

  /** @returns undefined when the upstream has never confirmed this name here */
  get(name: string): TagStatement | undefined {
    return this.#byName.get(name);
  }

  *entries(): IterableIterator<[name: string, tag: TagStatement]> {
    yield* this.#byName.entries();
  }
}
