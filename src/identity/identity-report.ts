import { certificatesIn, checkIdentity, factsOf } from '../rpc/identity-facts.ts';
import type { Identity } from '../rpc/identity.ts';
import type { AuthorityState } from './authority-state.ts';
import type { AuthorityStore, IdentityStore } from './identity-store.ts';

/** What there is of an authority and of what it has issued; nothing of keys. */
export interface IdentityReport {
  readonly authority: {
    readonly name: string;
    readonly phase: AuthorityState['phase'] | 'missing';
    readonly certificates: readonly {
      readonly use: 'current' | 'next' | 'previous';
      readonly subject: string;
      readonly notAfter: string;
    }[];
  };
  readonly identities: readonly {
    readonly name: string;
    readonly subject?: string;
    readonly issuer?: string;
    readonly notAfter?: string;
    /** Why nodes could not use it. */
    readonly problem?: string;
  }[];
}

/** @throws when something cannot be read */
export async function describeIdentities(
  stores: { readonly authority: AuthorityStore; readonly identities: readonly IdentityStore[] },
  options: { readonly nowMs: number },
): Promise<IdentityReport> {
  const { authority, identities } = stores;
  const state = await authority.read();
  const uses = ['current', 'next', 'previous'] as const;
  const certificates = uses.flatMap((use) => {
    const kept = state?.[use];
    return kept === undefined
      ? []
      : certificatesIn(kept.certificate).map((each) => ({ use, ...shown(factsOf(each)) }));
  });
  return {
    authority: { name: authority.name, phase: state?.phase ?? 'missing', certificates },
    identities: await Promise.all(
      identities.map(async (store) => ({
        name: store.name,
        ...describeIdentity(await store.read(), options),
      })),
    ),
  };
}

function describeIdentity(
  identity: Identity | undefined,
  options: { readonly nowMs: number },
): Omit<IdentityReport['identities'][number], 'name'> {
  if (identity === undefined) return { problem: 'there is none' };
  let problem: { problem?: string } = {};
  try {
    checkIdentity(identity, options);
  } catch (error) {
    problem = { problem: error instanceof Error ? error.message : String(error) };
  }
  try {
    const [leaf] = certificatesIn(identity.certificate).map(factsOf);
    return leaf === undefined ? problem : { ...shown(leaf), issuer: leaf.issuer, ...problem };
  } catch {
    return problem;
  }
}

function shown({ subject, notAfterMs }: { subject: string; notAfterMs: number }): {
  subject: string;
  notAfter: string;
} {
  return { subject, notAfter: new Date(notAfterMs).toISOString() };
}
