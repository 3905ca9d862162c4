import { LRUCache } from 'lru-cache';
import type { NamedObservation, Observation, ObservationFile } from './observation-file.ts';

/** What outlives the process. */
export type KeptObservations = Pick<ObservationFile, 'load' | 'save' | 'onReturn'>;

/** Registries that are remembered to have answered, the latest; a cluster uses a handful. */
const MAX_REGISTRIES = 1000;

/**
 * What the upstream confirmed about tags, as this node's registry saw it: the only honest basis
 * for answering tags when the upstream cannot be asked.
 */
export class Observations {
  readonly #byName: LRUCache<string, Observation>;
  // Not max, for the same reason as below.
  readonly #registries = new LRUCache<string, true>({
    maxSize: MAX_REGISTRIES,
    sizeCalculation: () => 1,
  });
  readonly #file: KeptObservations | undefined;

  /**
   * @param options.maxNames how many names are remembered; the oldest use goes first
   * @param dependencies.file what outlives the process; without it, memory is all there is
   */
  constructor(
    options: { readonly maxNames: number },
    dependencies: { file?: KeptObservations | undefined } = {},
  ) {
    // With max it would take the memory of all of them at once.
    this.#byName = new LRUCache({ maxSize: options.maxNames, sizeCalculation: () => 1 });
    this.#file = dependencies.file;
    for (const [name, tag] of this.#file?.load() ?? []) this.#learn(name, tag);
    this.#file?.onReturn((entries) => this.#reconcile(entries));
  }

  /**
   * Keeps a statement unless a later one is known already: answers may overtake each other.
   *
   * @param name "registry/repository:tag"
   */
  record(name: string, tag: Observation): void {
    if (this.#learn(name, tag)) this.#file?.save(name, tag);
  }

  /** @returns undefined when the upstream has never confirmed this name here */
  get(name: string): Observation | undefined {
    return this.#byName.get(name);
  }

  /** Whether the registry of a name has ever confirmed anything here. */
  hasSeen(name: string): boolean {
    return this.#registries.has(registryOf(name));
  }

  /** The registries that have confirmed something here. */
  registries(): IterableIterator<string> {
    return this.#registries.keys();
  }

  *entries(): IterableIterator<[name: string, tag: Observation]> {
    yield* this.#byName.entries();
  }

  /** @returns whether it is the latest that is known of the name */
  #learn(name: string, tag: Observation): boolean {
    const known = this.#byName.get(name)?.observedAtMs ?? 0;
    if (tag.observedAtMs < known) return false;
    this.#byName.set(name, tag);
    this.#registries.set(registryOf(name), true);
    return true;
  }

  /** The file was away for a while: each side gets what the other knows better. */
  #reconcile(entries: readonly NamedObservation[]): void {
    const kept = new Map(entries.map(([name, { observedAtMs }]) => [name, observedAtMs]));
    for (const [name, tag] of this.#byName.entries()) {
      if (Math.round(tag.observedAtMs) > (kept.get(name) ?? -1)) this.#file?.save(name, tag);
    }
    for (const [name, tag] of entries) this.#learn(name, tag);
  }
}

function registryOf(name: string): string {
  return name.slice(0, name.indexOf('/'));
}
