import type { Member, Membership } from './membership.ts';

/** A membership that is written down in the configuration. */
export class StaticMembership implements Membership {
  #members: readonly Member[];

  constructor(members: readonly Member[]) {
    this.#members = members;
  }

  members(): readonly Member[] {
    return this.#members;
  }

  /** Counts for lookups from now on. */
  replace(members: readonly Member[]): void {
    this.#members = members;
  }
}
