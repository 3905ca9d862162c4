import { AgentError } from '../../rpc/agent-error.ts';
import type {
  AgentClient,
  LocatedHolder,
  LocateKey,
  LocateSummary,
} from '../../rpc/agent-client.ts';
import type { SecondLook } from '../../rpc/locate-messages.ts';
import type { Silence } from '../../rpc/silence.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { pause, within } from '../../telemetry/within.ts';

/** Asked when there is no agent to ask: a plain mirror. */
const NOBODY: LocateSummary = { asked: 0, failed: 0 };
/** For how long, from the start of a search, copies that are not the best wait for better ones. */
const BEST_FIRST_MS = 50;
/** What the agent gets beyond the time that it has for silent nodes, milliseconds. */
const GRACE_MS = 500;
/** Between two calls to an agent that can be reached and fails, milliseconds. */
const PACE_MS = 200;

/** What is asked for with the next holder. */
export interface NextOptions {
  /**
   * A copy that was not hashed, or is in another zone, is taken a little later, or when all have
   * answered: who answers first is no reason to prefer it.
   */
  readonly bestFirst?: boolean;
  /** Whether nodes that gave no answer may be waited for; so unless told. */
  readonly isPatient?: boolean;
}

/** A search for holders, as those see it who want them. */
export interface HolderLookup {
  /** Those that have answered so far. */
  readonly holders: readonly LocatedHolder[];
  /** How many were asked and how many gave no answer; undefined until all is known. */
  readonly summary: LocateSummary | undefined;
  /** Whom it would help to ask again, by name; none: everybody. Undefined: nobody. */
  readonly silent: readonly string[] | undefined;
  /**
   * The next holder that `accepts` likes, at once if one has answered already.
   *
   * @returns undefined when all have answered and none is left
   */
  next(
    accepts: (holder: LocatedHolder) => boolean,
    options?: NextOptions,
  ): Promise<LocatedHolder | undefined>;
  /**
   * Waits until everybody has answered or the time is over.
   *
   * @param isEnough where they do not add up to this, nodes that gave no answer may be waited for
   */
  all(isEnough?: (holders: readonly LocatedHolder[]) => boolean): Promise<readonly LocatedHolder[]>;
  /** Stops looking. */
  cancel(): void;
}

type Agent = Pick<AgentClient, 'locate' | 'connect'>;

interface SearchOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly again?: SecondLook | undefined;
}

/**
 * One question "who has this?" and its answers as they come in. Several readers may wait on it.
 */
export class HolderSearch implements HolderLookup {
  readonly #holders: LocatedHolder[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #abort = new AbortController();
  readonly #cost: (holder: LocatedHolder) => number;
  readonly #ownSilence: Silence | undefined;
  readonly #log: Logger;
  #summary: LocateSummary | undefined;
  /** The own agent has not said who was asked. */
  #isCut = false;
  #takesAny = false;

  /**
   * Starts to look. Ends by itself after `timeoutMs`.
   *
   * @param options.again asks once more those that gave no answer, for as long as it says
   */
  constructor(
    key: LocateKey,
    options: { readonly signal: AbortSignal } & (
      { readonly timeoutMs: number; readonly again?: undefined } | { readonly again: SecondLook }
    ),
    dependencies: {
      /** Undefined where the node has none. */
      agent: Agent | undefined;
      /** Since when the agent itself gives no answer. */
      ownSilence?: Silence;
      /** What taking a holder costs; the cheapest is taken first, of equals the quickest. */
      cost?: (holder: LocatedHolder) => number;
      log: Logger;
    },
  ) {
    this.#cost = dependencies.cost ?? (() => 0);
    this.#ownSilence = dependencies.ownSilence;
    this.#log = dependencies.log;
    if (dependencies.agent === undefined) {
      this.#summary = NOBODY;
      return;
    }
    const signal = AbortSignal.any([options.signal, this.#abort.signal]);
    const timer = setTimeout(() => {
      this.#takesAny = true;
      this.#wake();
    }, BEST_FIRST_MS);
    const { agent } = dependencies;
    const work =
      options.again === undefined
        ? this.#lookOnce(agent, key, { ...options, signal })
        : this.#lookUntil(agent, key, { signal, again: options.again });
    void work.finally(() => {
      clearTimeout(timer);
      this.#summary ??= NOBODY;
      this.#wake();
    });
  }

  get holders(): readonly LocatedHolder[] {
    return this.#holders;
  }

  get summary(): LocateSummary | undefined {
    return this.#summary;
  }

  get silent(): readonly string[] | undefined {
    if (this.#isCut) return [];
    const { failed, silent } = this.#summary ?? NOBODY;
    return failed === 0 ? undefined : (silent ?? []);
  }

  async next(
    accepts: (holder: LocatedHolder) => boolean,
    options: NextOptions = {},
  ): Promise<LocatedHolder | undefined> {
    const isGood = ({ far, verified }: LocatedHolder): boolean =>
      (verified && !far) || this.#takesAny || options.bestFirst !== true;
    for (;;) {
      const found = this.#cheapest(this.#holders.filter(accepts));
      if (this.#summary !== undefined || (found !== undefined && isGood(found))) return found;
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  async all(): Promise<readonly LocatedHolder[]> {
    await this.next(() => false);
    return this.#holders;
  }

  cancel(): void {
    this.#abort.abort();
  }

  /** @returns whether the agent has said all there is to say */
  async #lookOnce(agent: Agent, key: LocateKey, options: SearchOptions): Promise<boolean> {
    try {
      for await (const event of agent.locate(key, options)) {
        this.#ownSilence?.end();
        if ('summary' in event) this.#summary = event.summary;
        else {
          this.#holders.push(event.holder);
          this.#wake();
        }
      }
    } catch (error) {
      const failure = AgentError.from(error, 'Cannot look for holders');
      if (failure.kind !== 'cancelled') {
        this.#log.warn({ err: failure, key }, 'search ended early');
        this.#ownSilence?.note(Date.now());
        this.#isCut = true;
      }
      return failure.kind === 'cancelled';
    }
    this.#isCut = false;
    return true;
  }

  /** The same until the time is over, where the agent itself gives no answer. */
  async #lookUntil(
    agent: Agent,
    key: LocateKey,
    { signal, again }: { readonly signal: AbortSignal; readonly again: SecondLook },
  ): Promise<void> {
    const startedAtMs = Date.now();
    const patienceMs = this.#ownSilence?.patienceMs(startedAtMs) ?? Number.POSITIVE_INFINITY;
    const endMs = startedAtMs + Math.min(again.waitMs, patienceMs);
    for (let nowMs = startedAtMs; nowMs < endMs && !signal.aborted; nowMs = Date.now()) {
      const isConnected = await within(endMs - nowMs, agent.connect(), signal);
      const waitMs = endMs - Date.now();
      if (isConnected === true && waitMs > 0) {
        const limits = { timeoutMs: waitMs + GRACE_MS, signal };
        if (await this.#lookOnce(agent, key, { ...limits, again: { ...again, waitMs } })) return;
      }
      await pause(Math.min(nowMs + PACE_MS, endMs) - Date.now(), signal);
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
