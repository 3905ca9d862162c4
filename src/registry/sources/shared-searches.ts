import type { LocateKey } from '../../rpc/agent-client.ts';
import type { SecondLook } from '../../rpc/locate-messages.ts';
import type { HolderLookup, HolderSearch } from './holder-search.ts';

/** A second look is joined if it goes on for nearly as long as wanted: this much less, milliseconds. */
const JOIN_SLACK_MS = 500;

interface Shared {
  readonly search: HolderSearch;
  /** When it ends at the latest, where it is a second look; milliseconds since the epoch. */
  readonly endMs: number;
  users: number;
}

/** Begins a search that ends by itself, or by the signal. */
export type StartSearch = (
  key: LocateKey,
  signal: AbortSignal,
  again: SecondLook | undefined,
) => HolderSearch;

/**
 * Lets requests that look for the same key at the same time share one search. Five hundred clients
 * that want one image would otherwise ask every node five hundred times, and an answer that comes
 * too late for that is an answer "nobody has it" that is false.
 */
export class SharedSearches {
  readonly #start: StartSearch;
  readonly #now: () => number;
  readonly #running = new Map<string, Shared>();

  constructor(dependencies: { start: StartSearch; now?: () => number }) {
    this.#start = dependencies.start;
    this.#now = dependencies.now ?? Date.now;
  }

  /**
   * One request's share of the search for a key that is running, or of a new one: leaving it does
   * not end it for the others.
   *
   * @param again a second look at those that gave no answer, shared with all who want the same
   */
  join(key: LocateKey, signal: AbortSignal, again?: SecondLook): HolderLookup {
    const what = 'digest' in key ? key.digest : key.name;
    const id = again === undefined ? what : JSON.stringify([what, again.nodes.toSorted()]);
    const shared = this.#find(id, again) ?? this.#begin(id, key, again);
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
      get silent() {
        return search.silent;
      },
      next: (accepts, options) => search.next(accepts, options),
      all: () => search.all(),
      cancel: leave,
    };
  }

  #find(id: string, again: SecondLook | undefined): Shared | undefined {
    const running = this.#running.get(id);
    if (running === undefined || again === undefined) return running;
    const wantedEndMs = this.#now() + again.waitMs;
    return running.endMs >= wantedEndMs - JOIN_SLACK_MS ? running : undefined;
  }

  #begin(id: string, key: LocateKey, again: SecondLook | undefined): Shared {
    const search = this.#start(key, new AbortController().signal, again);
    const shared: Shared = { search, endMs: this.#now() + (again?.waitMs ?? 0), users: 0 };
    this.#running.set(id, shared);
    // What was found is true at its moment; whoever comes later looks again.
    void search.all().then(() => this.#forget(id, shared));
    return shared;
  }

  #forget(id: string, shared: Shared): void {
    if (this.#running.get(id) === shared) this.#running.delete(id);
  }
}
