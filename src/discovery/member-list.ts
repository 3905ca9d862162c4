import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { MemberFile } from './member-file.ts';
import type { Member, Membership, MembershipStatus } from './membership.ts';

/** A member that a source has stopped to name is asked for this long after all, milliseconds. */
const SETTLE_MS = 15_000;
/** The same where the source names nobody at all. */
const EMPTY_GRACE_MS = 600_000;

export interface MemberListOptions {
  /** @returns whether a member is this node, by whatever name */
  readonly isSelf: (member: Member) => boolean;
  /** More members than this are left out. */
  readonly maxMembers: number;
}

export interface MemberListDependencies {
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Logger;
  /** Where the list outlives the process. */
  readonly file?: Pick<MemberFile, 'read' | 'save'> | undefined;
  /** Told who belongs to the cluster whenever that has changed. */
  readonly onChange?: (members: readonly Member[]) => void;
}

interface Entry {
  readonly member: Member;
  /** When the source first left it out; undefined while it is named. */
  readonly goneSinceMs: number | undefined;
}

/**
 * The members that some source names. Who is new counts at once; who is no longer named is kept
 * for a while, since lists flap, are split anew, or come empty from an API server that has just
 * started: asking a node in vain costs little, not asking one may cost a pull.
 */
export class MemberList implements Membership {
  readonly #options: MemberListOptions;
  readonly #dependencies: MemberListDependencies;
  #entries: readonly Entry[] = [];
  #members: readonly Member[] = [];
  /** When the next entry is to be dropped. */
  #nextDropMs = Infinity;
  #source = '';
  #confirmedAtMs: number | undefined;
  #trouble: string | undefined;
  #hasSelf: boolean | undefined;
  #zone: string | undefined;

  constructor(options: MemberListOptions, dependencies: MemberListDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  members(): readonly Member[] {
    if (this.#dependencies.clock.now() >= this.#nextDropMs) this.#publish(this.#entries);
    return this.#members;
  }

  /** Says where the list comes from, where that needs no waiting. */
  describe(source: string): void {
    this.#source = source;
  }

  /**
   * Begins with another source. The members stay until it has named its own; where the list has
   * none, those that the source named before the process was started are taken.
   */
  async begin(source: string): Promise<void> {
    this.#source = source;
    this.#confirmedAtMs = undefined;
    this.#trouble = undefined;
    this.#hasSelf = undefined;
    this.#zone = undefined;
    if (this.#entries.length > 0) return;
    const kept = await this.#dependencies.file?.read(source);
    if (kept === undefined) return;
    this.#confirmedAtMs = kept.savedAtMs;
    this.#publish(kept.members.map((member) => ({ member, goneSinceMs: undefined })));
    const { savedAtMs } = kept;
    const fields = { source, count: this.#members.length, savedAt: new Date(savedAtMs) };
    this.#dependencies.log.info(fields, 'members taken from disk until they are listed');
  }

  /**
   * Takes what the source says.
   *
   * @param options.isFinal whoever is not named has left for sure, and the list need not be kept
   */
  replace(named: readonly Member[], options: { readonly isFinal?: boolean } = {}): void {
    const { clock, file, log } = this.#dependencies;
    const nowMs = clock.now();
    this.confirm();
    const members = this.#bounded(named);
    const names = new Set(members.map(({ name }) => name));
    const addresses = new Set(members.map(({ address }) => address));
    const gone = this.#entries
      .filter(({ member }) => !names.has(member.name) && !addresses.has(member.address))
      .map(({ member, goneSinceMs }) => ({ member, goneSinceMs: goneSinceMs ?? nowMs }));
    const kept = options.isFinal === true ? [] : gone;
    const before = this.#named();
    this.#publish([...members.map((member) => ({ member, goneSinceMs: undefined })), ...kept]);
    if (isDeepStrictEqual(before, members)) return;
    const source = this.#source;
    if (members.length === 0 && kept.length > 0) {
      log.warn(
        { source, kept: kept.length, forMs: EMPTY_GRACE_MS },
        'the list of members is empty, the last ones are kept for a while',
      );
      return;
    }
    log.info({ source, count: members.length, kept: kept.length }, 'members changed');
    if (options.isFinal !== true && members.length > 0) file?.save(source, members);
  }

  /** The source says that its last list still holds. */
  confirm(): void {
    this.#confirmedAtMs = this.#dependencies.clock.now();
    this.#trouble = undefined;
  }

  /** The source cannot be asked. The members stay. */
  reportTrouble(reason: string): void {
    this.#trouble = reason;
  }

  status(): MembershipStatus {
    const count = this.members().length;
    return {
      source: this.#source,
      count,
      kept: this.#entries.filter(({ goneSinceMs }) => goneSinceMs !== undefined).length,
      confirmedAtMs: this.#confirmedAtMs,
      hasSelf: this.#hasSelf,
      zone: this.#zone,
      trouble: this.#trouble,
    };
  }

  /** Failure zone of this node, once the source has told it. */
  get zone(): string | undefined {
    return this.#zone;
  }

  #named(): readonly Member[] {
    return this.#entries
      .filter(({ goneSinceMs }) => goneSinceMs === undefined)
      .map(({ member }) => member);
  }

  #bounded(named: readonly Member[]): readonly Member[] {
    const { isSelf, maxMembers } = this.#options;
    const others = named.filter((member) => !isSelf(member));
    this.#hasSelf = others.length < named.length;
    this.#zone = named.find(this.#options.isSelf)?.zone;
    if (others.length <= maxMembers) return others;
    this.#dependencies.log.warn(
      { source: this.#source, found: others.length, taken: maxMembers },
      'more members than can be asked, the others are left out',
    );
    return others.slice(0, maxMembers);
  }

  /** Puts entries into effect, but for those whose time is over. */
  #publish(entries: readonly Entry[]): void {
    const nowMs = this.#dependencies.clock.now();
    const isEmpty = entries.every(({ goneSinceMs }) => goneSinceMs !== undefined);
    const graceMs = isEmpty ? EMPTY_GRACE_MS : SETTLE_MS;
    const dropMs = ({ goneSinceMs }: Entry): number => (goneSinceMs ?? Infinity) + graceMs;
    this.#entries = entries.filter((entry) => dropMs(entry) > nowMs);
    this.#nextDropMs = Math.min(Infinity, ...this.#entries.map(dropMs));
    const members = this.#entries.map(({ member }) => member);
    if (isDeepStrictEqual(members, this.#members)) return;
    this.#members = members;
    this.#dependencies.onChange?.(members);
  }
}
