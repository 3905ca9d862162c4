import type { Identity, Role } from '../rpc/identity.ts';
import type { AuthorityState } from './authority-state.ts';

/** Where the authority of a cluster is kept. */
export interface AuthorityStore {
  /** For people. */
  readonly name: string;
  /**
   * @returns undefined when there is none yet
   * @throws when it cannot be read
   */
  read(): Promise<AuthorityState | undefined>;
  /** @throws when it cannot be written, or somebody else has changed it since it was read */
  write(state: AuthorityState): Promise<void>;
}

/** Where one identity is kept for the processes that use it. */
export interface IdentityStore {
  /** For people, and the authority's memory. */
  readonly name: string;
  readonly roles: readonly Role[];
  /** @returns undefined when there is none; empty parts where only some are missing */
  read(): Promise<Identity | undefined>;
  write(identity: Identity): Promise<void>;
}
