import { namePattern } from '../oci/name-pattern.ts';
import { isGuardedHost } from './guarded-address.ts';

/** Which registries may be asked on behalf of clients. */
export interface RegistryRules {
  /** Patterns of registry names, "*" standing for any part of one. */
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  /** Names that the configuration describes; no other may stand for this host or its links. */
  readonly configured: readonly string[];
}

/** RFC 6761, 6.4: no such name can ever be there, so that asking would only look like an outage. */
const neverThere = /\.invalid(:\d+)?$/i;

/** Whether a registry may be asked. */
export function allowsRegistry(rules: RegistryRules, name: string): boolean {
  const { allow, configured, deny } = rules;
  const isConfigured = configured.includes(name);
  if (!isConfigured && (isGuardedHost(name) || neverThere.test(name))) return false;
  if (deny.some((pattern) => namePattern(pattern).test(name))) return false;
  return allow.some((pattern) => namePattern(pattern).test(name));
}
