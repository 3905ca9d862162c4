import type { Logger } from '../telemetry/logger.ts';
import type { LocateKey, LocateSummary } from '../rpc/agent-client.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import { MemberHealth } from './member-health.ts';
import type { Member, Membership } from './membership.ts';

/** What one node says about a key; undefined stands for "not here". */
export interface KeyAnswer {
  readonly sizeBytes: number;
  readonly verified: boolean;
  readonly busy: boolean;
  readonly tags: readonly TagStatement[];
  /** The registry that was asked for has once answered that node. */
  readonly registrySeen: boolean;
}

/** A member and its answer. */
export interface KeyHolder extends KeyAnswer {
  readonly member: Member;
  /** In another failure zone than this node, where both zones are known. */
  readonly far: boolean;
}

/** A question to one member, this node or another. */
export type AskMember = (
  member: Member,
  key: LocateKey,
  limits: { readonly signal: AbortSignal; readonly timeoutMs: number },
) => Promise<KeyAnswer | undefined>;

export interface LocatorOptions {
  readonly self: Member;
  /** How long one member may take, milliseconds. */
  readonly memberTimeoutMs: number;
  /** How many members are asked at once, at most. */
  readonly maxMembersAsked: number;
}

/** A member that did not answer lately gets this share of the usual time. */
const SUSPECT_SHARE = 0.25;

/**
 * Finds who has a key by asking every member at once: right for small clusters, and never wrong,
 * since what each member says is what it has at that moment.
 */
export class Locator {
  readonly #options: LocatorOptions;
  readonly #membership: Membership;
  readonly #ask: AskMember;
  readonly #log: Logger;
  readonly #health: MemberHealth;

  constructor(
    options: LocatorOptions,
    dependencies: { membership: Membership; ask: AskMember; log: Logger },
  ) {
    this.#options = options;
    this.#membership = dependencies.membership;
    this.#ask = dependencies.ask;
    this.#log = dependencies.log;
    this.#health = new MemberHealth({
      timeoutMs: options.memberTimeoutMs,
      suspectTimeoutMs: options.memberTimeoutMs * SUSPECT_SHARE,
    });
  }

  /**
   * Holders in the order in which they answer, then a summary. Ends within the member timeout
   * times the rounds that the cluster's size takes; never throws for a member's failure.
   */
  async *locate(
    key: LocateKey,
    options: { readonly signal: AbortSignal },
  ): AsyncGenerator<{ holder: KeyHolder } | { summary: LocateSummary }> {
    const { self, maxMembersAsked } = this.#options;
    const others = this.#membership.members().filter((member) => member.name !== self.name);
    this.#health.keepOnly(new Set([self.name, ...others.map(({ name }) => name)]));
    // Those that failed lately come last: they must not hold up the others where not all are
    // asked at once.
    const isSuspect = ({ name }: Member): boolean => this.#health.isSuspect(name);
    const trusted = others.filter((member) => !isSuspect(member));
    const waiting = [self, ...trusted, ...others.filter(isSuspect)];
    const asked = waiting.length;
    const tally = { ended: 0, failed: 0 };
    const found: KeyHolder[] = [];
    let news = Promise.withResolvers<undefined>();
    const left = new AbortController();
    const signal = AbortSignal.any([options.signal, left.signal]);
    const askNext = async (): Promise<void> => {
      for (let member = waiting.shift(); member !== undefined; member = waiting.shift()) {
        const answer = await this.#askOne(member, key, signal);
        tally.ended += 1;
        if (answer === 'failed') tally.failed += 1;
        if (typeof answer === 'object') found.push({ member, far: this.#isFar(member), ...answer });
        if (typeof answer === 'object' || tally.ended === asked) news.resolve(undefined);
      }
    };
    try {
      for (let count = Math.min(maxMembersAsked, asked); count > 0; count -= 1) void askNext();
      for (;;) {
        for (let holder = found.shift(); holder !== undefined; holder = found.shift()) {
          yield { holder };
        }
        if (tally.ended === asked) break;
        await news.promise;
        news = Promise.withResolvers<undefined>();
      }
      yield { summary: { asked, failed: tally.failed } };
    } finally {
      // Whoever stops listening has no more use for the answers that are still to come.
      left.abort();
    }
  }

  #isFar({ zone }: Member): boolean {
    const own = this.#membership.zone;
    return own !== undefined && zone !== undefined && zone !== own;
  }

  async #askOne(
    member: Member,
    key: LocateKey,
    signal: AbortSignal,
  ): Promise<KeyAnswer | 'absent' | 'failed'> {
    const isGone = (): boolean => signal.aborted;
    if (isGone()) return 'failed';
    const timeoutMs = this.#health.timeoutMs(member.name);
    const late = Promise.withResolvers<never>();
    const fail = (why: string): void => late.reject(new Error(`Cannot wait longer: ${why}`));
    // A member that is this process itself knows no deadline of its own.
    const timer = setTimeout(() => fail('no answer in time'), timeoutMs);
    const onAbort = (): void => fail('nobody listens any more');
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const answer = await Promise.race([
        this.#ask(member, key, { signal, timeoutMs }),
        late.promise,
      ]);
      this.#health.recordAnswer(member.name);
      return answer ?? 'absent';
    } catch (error) {
      if (!isGone()) this.#health.recordFailure(member.name);
      this.#log.debug({ member: member.name, key, err: error }, 'member gave no answer');
      return 'failed';
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  }
}
