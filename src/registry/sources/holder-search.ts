import { AgentError } from '../../rpc/agent-error.ts';
import type {
  AgentClient,
  LocatedHolder,
  LocateKey,
  LocateSummary,
} from '../../rpc/agent-client.ts';
import type { Logger } from '../../telemetry/logger.ts';

/** Asked when there is no agent to ask: a plain mirror. */
const NOBODY: LocateSummary = { asked: 0, failed: 0 };
/** For how long, from the start of a search, copies that are not the best wait for better ones. */
const BEST_FIRST_MS = 50;

/**
 * One question "who has this?" and its answers as they come in. Several readers may wait on it.
 */
export class HolderSearch {
  readonly #holders: LocatedHolder[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #abort = new AbortController();
  readonly #cost: (holder: LocatedHolder) => number;
  #summary: LocateSummary | undefined;
  #takesAny = false;

  /**
   * Starts to look. Ends by itself after `timeoutMs`.
   *
   * @param agent undefined where the node has none
   */
  constructor(
    key: LocateKey,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
    dependencies: {
      agent: Pick<AgentClient, 'locate'> | undefined;
      /** What taking a holder costs; the cheapest is taken first, of equals the quickest. */
      cost?: (holder: LocatedHolder) => number;
      log: Logger;
    },
  ) {
    this.#cost = dependencies.cost ?? (() => 0);
    if (dependencies.agent === undefined) {
      this.#summary = NOBODY;
      return;
    }
    const signal = AbortSignal.any([options.signal, this.#abort.signal]);
    const timer = setTimeout(() => {
      this.#takesAny = true;
      this.#wake();
    }, BEST_FIRST_MS);
    void this.#run(dependencies.agent, key, { ...options, signal }, dependencies.log).finally(() =>
      clearTimeout(timer),
    );
  }

  /** Those that have answered so far. */
  get holders(): readonly LocatedHolder[] {
    return this.#holders;
  }

  /** How many were asked and how many gave no answer; undefined until all is known. */
  get summary(): LocateSummary | undefined {
    return this.#summary;
  }

  /**
   * The next holder that `accepts` likes, at once if one has answered already.
   *
   * @param options.bestFirst a copy that was not hashed, or is in another zone, is taken a little
   *   later, or when all have answered: who answers first is no reason to prefer it
   * @returns undefined when all have answered and none is left
   */
  async next(
    accepts: (holder: LocatedHolder) => boolean,
    options: { readonly bestFirst?: boolean } = {},
  ): Promise<LocatedHolder | undefined> {
    const isGood = ({ far, verified }: LocatedHolder): boolean =>
      (verified && !far) || this.#takesAny || options.bestFirst !== true;
    for (;;) {
      const found = this.#cheapest(this.#holders.filter(accepts));
      if (this.#summary !== undefined || (found !== undefined && isGood(found))) return found;
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  /** Waits until everybody has answered or the time is over. */
  async all(): Promise<readonly LocatedHolder[]> {
    await this.next(() => false);
    return this.#holders;
  }

  /** Stops looking. */
  cancel(): void {
    this.#abort.abort();
  }

  async #run(
    agent: Pick<AgentClient, 'locate'>,
    key: LocateKey,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
    log: Logger,
  ): Promise<void> {
    try {
      for await (const event of agent.locate(key, options)) {
        if ('summary' in event) this.#summary = event.summary;
        else {
          this.#holders.push(event.holder);
          this.#wake();
        }
      }
    } catch (error) {
      const failure = AgentError.from(error, 'Cannot look for holders');
      if (failure.kind !== 'cancelled') log.warn({ err: failure, key }, 'search ended early');
    } finally {
      this.#summary ??= NOBODY;
      this.#wake();
    }
  }

  #cheapest(holders: readonly LocatedHolder[]): LocatedHolder | undefined {
    let found: LocatedHolder | undefined;
    let foundCost = Number.POSITIVE_INFINITY;
    for (const holder of holders) {
      const cost = this.#cost(holder);
      if (cost < foundCost) [found, foundCost] = [holder, cost];
    }
    return found;
  }

  #wake(): void {
    for (const wake of this.#waiters) wake();
    this.#waiters.clear();
  }
}
