import { certificatesIn } from '../rpc/identity-facts.ts';
import { addressForm, addressesIn } from '../rpc/identity-roles.ts';
import type { Identity } from '../rpc/identity.ts';
import type { IdentityStore } from './identity-store.ts';

/**
 * What an identity is to be known by beside its roles.
 *
 * @param known the present identity, whose addresses stay where none are asked for
 * @param wanted DNS names and IP addresses for agents
 * @returns sorted, each in its one form; none for other roles
 */
export function addressesFor(
  { roles }: Pick<IdentityStore, 'roles'>,
  known: Identity | undefined,
  wanted: readonly string[] | undefined,
): readonly string[] {
  if (!roles.includes('agent')) return [];
  if (wanted !== undefined) return [...new Set(wanted.map(addressForm))].toSorted();
  try {
    return addressesIn(certificatesIn(known?.certificate ?? '')[0]?.subjectAltName);
  } catch {
    return [];
  }
}
