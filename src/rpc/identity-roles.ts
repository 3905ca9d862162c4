import { isIP } from 'node:net';

/**
 * What somebody is, as their certificate says it: a process of Salvor, or ("bootstrap") the
 * containerd of a node that Salvor has not come to yet.
 */
export type Role = 'agent' | 'registry' | 'bootstrap';

export const ROLES: readonly Role[] = ['agent', 'registry', 'bootstrap'];

/**
 * The DNS name that stands for a role. Certificates carry it as a subject alternative name, so
 * that any issuer can make them and addresses may change.
 */
export function roleName(role: Role): string {
  return `${role}.salvor.internal`;
}

/**
 * @param names subject alternative names as Node writes them: "DNS:a, DNS:b"
 * @returns every role that is among them
 */
export function rolesIn(names: string | undefined): ReadonlySet<Role> {
  const found = (names ?? '').split(', ');
  return new Set(ROLES.filter((role) => found.includes(`DNS:${roleName(role)}`)));
}

/**
 * The names beside roles, by which others than Salvor's own processes know a server.
 *
 * @param names subject alternative names as Node writes them
 * @returns DNS names and IP addresses, each in its one form, sorted
 */
export function addressesIn(names: string | undefined): readonly string[] {
  const roles = ROLES.map(roleName);
  const found = (names ?? '').split(', ').flatMap((name) => {
    const [, value = ''] = /^(?:DNS|IP Address):(.+)$/.exec(name) ?? [];
    return value === '' || roles.includes(value) ? [] : [addressForm(value)];
  });
  return [...new Set(found)].toSorted();
}

/** One form for each address: names in lower case, IPv6 addresses as short as they can be. */
export function addressForm(address: string): string {
  if (isIP(address) !== 6) return address.toLowerCase();
  return new URL(`http://[${address}]/`).hostname.slice(1, -1);
}
