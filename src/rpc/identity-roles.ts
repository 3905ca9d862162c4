/** What a process is, as its certificate says it. */
export type Role = 'agent' | 'registry';

export const ROLES: readonly Role[] = ['agent', 'registry'];

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
