import type { Member, Membership } from './membership.ts';

/** A membership that is written down in the configuration. */
export class StaticMembership implements Membership {
  readonly #members: readonly Member[];

  constructor(members: readonly Member[]) {
    this.#members = members;
  }

  members(): readonly Member[] {
    return this.#members;
  }
}
