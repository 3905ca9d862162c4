import type { LocateKey } from '../../rpc/agent-client.ts';
import type { HolderSearch } from './holder-search.ts';

/** One request's share of a search: leaving it does not end it for the others. */
export type HolderLookup = Pick<HolderSearch, 'holders' | 'summary' | 'next' | 'all' | 'cancel'>;

interface Shared {
  readonly search: HolderSearch;
  users: number;
}

/**
 * Lets requests that look for the same key at the same time share one search. Five hundred clients
 * that want one image would otherwise ask every node five hundred times, and an answer that comes
 * too late for that is an answer "nobody has it" that is false.
 */
export class SharedSearches {
  readonly #start: (key: LocateKey, signal: AbortSignal) => HolderSearch;
  readonly #running = new Map<string, Shared>();

  /** @param dependencies.start begins a search that ends by itself, or by the signal */
  constructor(dependencies: { start: (key: LocateKey, signal: AbortSignal) => HolderSearch }) {
    this.#start = dependencies.start;
  }

  /** Joins the search for a key that is running, or begins one. */
  join(key: LocateKey, signal: AbortSignal): HolderLookup {
    const id = 'digest' in key ? key.digest : key.name;
    const shared = this.#running.get(id) ?? this.#begin(id, key);
    shared.users += 1;
    let hasLeft = false;
    const leave = (): void => {
      if (hasLeft) return;
      hasLeft = true;
      signal.removeEventListener('abort', leave);
      shared.users -= 1;
      if (shared.users > 0) return;
      shared.search.cancel();
      this.#forget(id, shared);
    };
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
    const { search } = shared;
    return {
      get holders() {
        return search.holders;
      },
      get summary() {
        return search.summary;
      },
      next: (accepts, options) => search.next(accepts, options),
      all: () => search.all(),
      cancel: leave,
    };
  }

  #begin(id: string, key: LocateKey): Shared {
    const search = this.#start(key, new AbortController().signal);
    const shared: Shared = { search, users: 0 };
    this.#running.set(id, shared);
    // What was found is true at its moment; whoever comes later looks again.
    void search.all().then(() => this.#forget(id, shared));
    return shared;
  }

  #forget(id: string, shared: Shared): void {
    if (this.#running.get(id) === shared) this.#running.delete(id);
  }
}
