import { BusyError } from './byte-budget.ts';
import type { Trace } from './trace.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';

/** The share of the time for an answer that can be waited; the rest is for the answer itself. */
const WAIT_SHARE = 0.9;
/** What is left at least when the upstream's trouble comes to light late, milliseconds. */
const MOMENT_MS = 250;

/**
 * How long one request may wait for nodes that gave no answer. Not at all, unless its upstream has
 * failed: then "nobody has it" would be an answer of those alone that happened to be there.
 */
export class Patience {
  readonly #now: () => number;
  readonly #trace: Pick<Trace, 'begin'>;
  readonly #needed = Promise.withResolvers<undefined>();
  readonly #verdict = Promise.withResolvers<undefined>();
  readonly #over = new AbortController();
  #endMs: number;
  #isGranted = false;

  /** @param options.budgetMs from the request until it must be answered in an outage, milliseconds */
  constructor(
    options: { readonly budgetMs: number },
    dependencies: { trace: Pick<Trace, 'begin' | 'elapsedMs'>; now?: () => number },
  ) {
    this.#now = dependencies.now ?? (() => performance.now());
    this.#trace = dependencies.trace;
    this.#endMs = this.#now() - dependencies.trace.elapsedMs() + options.budgetMs * WAIT_SHARE;
  }

  /** The upstream has failed: silent nodes are worth waiting for. */
  grant(): void {
    if (this.#isGranted) return;
    this.#isGranted = true;
    this.#endMs = Math.max(this.#endMs, this.#now() + MOMENT_MS);
    this.#verdict.resolve(undefined);
  }

  /** The upstream has answered, or nothing is to be waited for; ends waits that are under way. */
  refuse(): void {
    this.#over.abort();
    this.#verdict.resolve(undefined);
  }

  /**
   * Follows a question to the upstream, whose first trouble grants and whose answer refuses.
   *
   * @param ask gets what to call at the first trouble
   * @param onTrouble called then, too
   * @throws what asking throws
   */
  async follow<T>(
    ask: (onTrouble: () => void) => Promise<T>,
    onTrouble: () => void = () => undefined,
  ): Promise<T> {
    try {
      const answer = await ask(() => {
        this.grant();
        onTrouble();
      });
      this.refuse();
      return answer;
    } catch (error) {
      if (isTrouble(error)) this.grant();
      else this.refuse();
      throw error;
    }
  }

  /** Settles when somebody would wait: whoever else can help should start now. */
  get needed(): Promise<undefined> {
    return this.#needed.promise;
  }

  /** Aborts when there is nothing more to wait for. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /**
   * Waits until it is clear what the upstream's word is.
   *
   * @returns how long nodes may be waited for, milliseconds; 0: not at all
   */
  async leftMs(): Promise<number> {
    this.#needed.resolve(undefined);
    await this.#verdict.promise;
    return this.#over.signal.aborted ? 0 : Math.max(0, this.#endMs - this.#now());
  }

  /** Notes a wait in the request's log line; the returned function notes how it ended. */
  begin(): (outcome: 'found' | 'in_vain') => void {
    return this.#trace.begin('silent nodes');
  }
}

function isTrouble(error: unknown): boolean {
  if (error instanceof BusyError) return false;
  if (!(error instanceof UpstreamFailure)) return true;
  return error.kind !== 'cancelled' && error.kind !== 'forbidden_address';
}
