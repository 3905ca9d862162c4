import type { Logger } from '../telemetry/logger.ts';
import type { LocateKey, LocateSummary } from '../rpc/agent-client.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import type { SecondLook } from '../rpc/locate-messages.ts';
import { MemberHealth } from './member-health.ts';
import type { Member, Membership } from './membership.ts';
import { pause, within } from '../telemetry/within.ts';

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

/**
 * Connects to a member.
 *
 * @returns whether it can be asked: as soon as it can, or after a moment; never throws
 */
export type ConnectMember = (member: Member) => Promise<boolean>;

export interface LocatorOptions {
  readonly self: Member;
  /** How long one member may take, milliseconds. */
  readonly memberTimeoutMs: number;
  /** How many members are asked at once, at most. */
  readonly maxMembersAsked: number;
}

/** A member that did not answer lately gets this share of the usual time. */
const SUSPECT_SHARE = 0.25;
/** Between two questions to a member that can be reached and gives no answer, milliseconds. */
const PACE_MS = 200;

/** One member's answer. */
type Outcome = KeyAnswer | 'absent' | 'failed';

/**
 * Finds who has a key by asking every member at once: right for small clusters, and never wrong,
 * since what each member says is what it has at that moment.
 */
export class Locator {
  readonly #options: LocatorOptions;
  readonly #membership: Membership;
  readonly #ask: AskMember;
  readonly #connect: ConnectMember;
  readonly #log: Logger;
  readonly #health: MemberHealth;

  constructor(
    options: LocatorOptions,
    dependencies: {
      membership: Membership;
      ask: AskMember;
      connect: ConnectMember;
      log: Logger;
    },
  ) {
    this.#options = options;
    this.#membership = dependencies.membership;
    this.#ask = dependencies.ask;
    this.#connect = dependencies.connect;
    this.#log = dependencies.log;
    this.#health = new MemberHealth({
      timeoutMs: options.memberTimeoutMs,
      suspectTimeoutMs: options.memberTimeoutMs * SUSPECT_SHARE,
    });
  }

  /**
   * Holders in the order in which they answer, then a summary. Ends within the member timeout
   * times the rounds that the cluster's size takes; never throws for a member's failure.
   *
   * @param options.again asks some members, each until it answers or the time is over; one that has
   *   been silent for long has but a moment. Members that join meanwhile are asked, too. Ends
   *   within that time.
   */
  async *locate(
    key: LocateKey,
    options: { readonly signal: AbortSignal; readonly again?: SecondLook | undefined },
  ): AsyncGenerator<{ holder: KeyHolder } | { summary: LocateSummary }> {
    const { again } = options;
    const waiting = this.#toAsk(again?.nodes ?? []);
    const tally = { asked: waiting.length, ended: 0, silent: [] as string[] };
    const found: KeyHolder[] = [];
    let news = Promise.withResolvers<undefined>();
    const left = new AbortController();
    const signal = AbortSignal.any([options.signal, left.signal]);
    const endOf = again && this.#ends(again);
    const ask = (member: Member): Promise<Outcome | 'later'> =>
      endOf === undefined
        ? this.#askOne(member, key, { signal })
        : this.#askAgain(member, key, { signal, endMs: endOf(member) });
    const askNext = async (): Promise<void> => {
      for (let member = waiting.shift(); member !== undefined; member = waiting.shift()) {
        const answer = await ask(member);
        if (answer === 'later') {
          // Where not all can be asked at once, the others have their turn first.
          waiting.push(member);
          continue;
        }
        tally.ended += 1;
        if (answer === 'failed') tally.silent.push(member.name);
        if (typeof answer === 'object') found.push({ member, far: this.#isFar(member), ...answer });
        if (typeof answer === 'object' || tally.ended === tally.asked) news.resolve(undefined);
      }
    };
    const stopJoining =
      again &&
      this.#followJoins((member) => {
        tally.asked += 1;
        waiting.push(member);
        void askNext();
      });
    try {
      const atOnce = Math.min(this.#options.maxMembersAsked, tally.asked);
      for (let count = atOnce; count > 0; count -= 1) void askNext();
      for (;;) {
        for (let holder = found.shift(); holder !== undefined; holder = found.shift()) {
          yield { holder };
        }
        if (tally.ended === tally.asked) break;
        await news.promise;
        news = Promise.withResolvers<undefined>();
      }
      const { asked, silent } = tally;
      yield { summary: { asked, failed: silent.length, silent } };
    } finally {
      stopJoining?.();
      // Whoever stops listening has no more use for the answers that are still to come.
      left.abort();
    }
  }

  #isFar({ zone }: Member): boolean {
    const own = this.#membership.zone;
    return own !== undefined && zone !== undefined && zone !== own;
  }

  /**
   * This node first. Those that failed lately come last: they must not hold up the others where
   * not all are asked at once.
   */
  #toAsk(nodes: readonly string[]): Member[] {
    const { self } = this.#options;
    const others = this.#membership.members().filter((member) => member.name !== self.name);
    this.#health.keepOnly(new Set([self.name, ...others.map(({ name }) => name)]));
    const isSuspect = ({ name }: Member): boolean => this.#health.isSuspect(name);
    const trusted = others.filter((member) => !isSuspect(member));
    const all = [self, ...trusted, ...others.filter(isSuspect)];
    const wanted = new Set(nodes);
    return wanted.size === 0 ? all : all.filter(({ name }) => wanted.has(name));
  }

  /** Until when each member is waited for, milliseconds since the epoch: as it is asked first. */
  #ends({ waitMs }: SecondLook): (member: Member) => number {
    const endMs = Date.now() + waitMs;
    const known = new Map<string, number>();
    return ({ name }) => {
      const ownEndMs =
        known.get(name) ?? Math.min(endMs, Date.now() + this.#health.patienceMs(name));
      known.set(name, ownEndMs);
      return ownEndMs;
    };
  }

  /** @returns what ends it */
  #followJoins(onJoin: (member: Member) => void): () => void {
    const known = new Set(this.#membership.members().map(({ name }) => name));
    known.add(this.#options.self.name);
    const timer = setInterval(() => {
      for (const member of this.#membership.members()) {
        if (known.has(member.name)) continue;
        known.add(member.name);
        onJoin(member);
      }
    }, PACE_MS);
    return () => clearInterval(timer);
  }

  /** @returns "later" when it gave no answer and there is time to ask it once more */
  async #askAgain(
    asked: Member,
    key: LocateKey,
    { endMs, signal }: { readonly signal: AbortSignal; readonly endMs: number },
  ): Promise<Outcome | 'later'> {
    const { name } = asked;
    const startedAtMs = Date.now();
    const isGone = (): boolean => signal.aborted;
    if (isGone() || startedAtMs >= endMs) return 'failed';
    // It may have come back at another address.
    const member = this.#membership.members().find((one) => one.name === name) ?? asked;
    const isSelf = name === this.#options.self.name;
    const canBeAsked =
      isSelf || (await within(endMs - startedAtMs, this.#connect(member), signal)) === true;
    if (isGone()) return 'failed';
    if (canBeAsked) {
      const maxMs = Math.max(1, endMs - Date.now());
      const answer = await this.#askOne(isSelf ? asked : member, key, { signal, maxMs });
      if (answer !== 'failed') return answer;
    } else this.#health.recordFailure(name);
    await pause(Math.min(startedAtMs + PACE_MS, endMs) - Date.now(), signal);
    return Date.now() >= endMs ? 'failed' : 'later';
  }

  async #askOne(
    member: Member,
    key: LocateKey,
    limits: { readonly signal: AbortSignal; readonly maxMs?: number },
  ): Promise<Outcome> {
    const { maxMs = Number.POSITIVE_INFINITY, signal } = limits;
    const isGone = (): boolean => signal.aborted;
    if (isGone()) return 'failed';
    const timeoutMs = Math.min(maxMs, this.#health.timeoutMs(member.name));
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
