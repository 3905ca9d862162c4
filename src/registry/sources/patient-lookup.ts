import type { LocatedHolder, LocateSummary } from '../../rpc/agent-client.ts';
import type { SecondLook } from '../../rpc/locate-messages.ts';
import { within } from '../../telemetry/within.ts';
import type { Patience } from '../patience.ts';
import type { HolderLookup, NextOptions } from './holder-search.ts';

/**
 * How long others that were silent may take longer than the first of them that helps,
 * milliseconds: they may know something newer.
 */
const SETTLE_MS = 250;

/** Where nodes that gave no answer can be asked again. */
export interface SecondLookup {
  /** Joins such a lookup, or begins one. */
  join(again: SecondLook): HolderLookup;
}

/**
 * One request's lookup in which nodes that gave no answer are asked again, once everybody else has
 * said no, for as long as the request's patience lasts.
 */
export class PatientLookup implements HolderLookup {
  readonly #first: HolderLookup;
  readonly #second: SecondLookup;
  readonly #patience: Patience;
  readonly #signal: AbortSignal;
  #again: { readonly lookup: HolderLookup; readonly nodes: readonly string[] } | undefined;
  #isCancelled = false;

  /** @param options.signal ends the waits */
  constructor(
    options: { readonly signal: AbortSignal },
    dependencies: { first: HolderLookup; second: SecondLookup; patience: Patience },
  ) {
    this.#first = dependencies.first;
    this.#second = dependencies.second;
    this.#patience = dependencies.patience;
    this.#signal = AbortSignal.any([options.signal, dependencies.patience.over]);
  }

  get holders(): readonly LocatedHolder[] {
    return [...this.#first.holders, ...(this.#again?.lookup.holders ?? [])];
  }

  get summary(): LocateSummary | undefined {
    const { summary } = this.#first;
    const later = this.#again?.lookup.summary;
    // Nobody was asked again where the own agent did not come back: they are as silent as before.
    if (later === undefined || summary === undefined || later.asked === 0) return summary;
    const isOfAll = this.#again?.nodes.length === 0;
    return isOfAll ? later : { ...later, asked: summary.asked };
  }

  get silent(): readonly string[] | undefined {
    return this.#first.silent;
  }

  async next(
    accepts: (holder: LocatedHolder) => boolean,
    options: NextOptions = {},
  ): Promise<LocatedHolder | undefined> {
    const found = await this.#first.next(accepts, options);
    if (found !== undefined) return found;
    const late = options.isPatient === false ? undefined : await this.#late(accepts, options);
    if (late !== undefined) return late;
    // Who has given an answer since needs no patience.
    const again = this.#again?.lookup;
    return again?.holders.some(accepts) === true ? again.next(accepts) : undefined;
  }

  async all(
    isEnough?: (holders: readonly LocatedHolder[]) => boolean,
  ): Promise<readonly LocatedHolder[]> {
    await this.#first.all();
    if (isEnough === undefined || isEnough(this.holders)) return this.holders;
    const found = await this.#late(this.#onNews(isEnough), {});
    const again = this.#again?.lookup;
    if (found !== undefined && again !== undefined) {
      const restMs = Math.min(SETTLE_MS, await this.#patience.leftMs());
      await within(restMs, again.all(), this.#signal);
    }
    return this.holders;
  }

  /** From among those that gave no answer at first, waiting for them while patience lasts. */
  async #late(
    accepts: (holder: LocatedHolder) => boolean,
    options: NextOptions,
  ): Promise<LocatedHolder | undefined> {
    const nodes = this.#first.silent;
    if (nodes === undefined) return undefined;
    const leftMs = this.#isCancelled ? 0 : await this.#patience.leftMs();
    if (leftMs <= 0 || this.#isCancelled || this.#signal.aborted) return undefined;
    this.#again ??= { lookup: this.#second.join({ nodes, waitMs: leftMs }), nodes };
    const note = this.#patience.begin();
    const late = await within(leftMs, this.#again.lookup.next(accepts, options), this.#signal);
    note(late === undefined ? 'in_vain' : 'found');
    return late;
  }

  /** Asks once for each that is new, not for each that is there: in a large cluster that is many. */
  #onNews(isEnough: (holders: readonly LocatedHolder[]) => boolean): () => boolean {
    let count = -1;
    let answer = false;
    return () => {
      const newCount = this.#again?.lookup.holders.length ?? 0;
      if (newCount !== count) {
        count = newCount;
        answer = isEnough(this.holders);
      }
      return answer;
    };
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#first.cancel();
    this.#again?.lookup.cancel();
  }
}
