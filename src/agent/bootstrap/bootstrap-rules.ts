import { namePattern } from '../../oci/name-pattern.ts';
import { Policies, allowsPeers, type PolicyRule, type PullPolicy } from '../../policy/policy.ts';
import { allowsRegistry, type RegistryRules } from '../../policy/registry-rules.ts';

export interface BootstrapRulesOptions {
  /** Patterns of "registry/repository". */
  readonly repositories: readonly string[];
  readonly registries: RegistryRules;
  readonly policies: readonly PolicyRule[];
}

/**
 * Which repositories the bootstrap listener gives out: those of its own list, less what the rules
 * for the registry keep nodes from answering without the upstream.
 */
export class BootstrapRules {
  readonly #patterns: readonly RegExp[];
  readonly #registries: RegistryRules;
  readonly #policies: Policies;

  constructor(options: BootstrapRulesOptions) {
    this.#patterns = options.repositories.map(namePattern);
    this.#registries = options.registries;
    this.#policies = new Policies(options.policies);
  }

  /** @param repository normalised, as the registry */
  mayRead(registry: string, repository: string): boolean {
    const name = `${registry}/${repository}`;
    return (
      this.#patterns.some((pattern) => pattern.test(name)) &&
      allowsRegistry(this.#registries, registry) &&
      allowsPeers(this.#policyOf(name))
    );
  }

  /**
   * Whether what a tag names may be told, although nobody asks the upstream.
   *
   * @param confirmedAgoMs since the upstream confirmed it; undefined: nobody knows
   */
  mayTellTag(
    place: { readonly registry: string; readonly repository: string },
    confirmedAgoMs: number | undefined,
  ): boolean {
    const { staleMaxAgeMs, staleOn } = this.#policyOf(`${place.registry}/${place.repository}`);
    if (staleOn.length === 0) return false;
    return staleMaxAgeMs === 0 || (confirmedAgoMs ?? Number.POSITIVE_INFINITY) <= staleMaxAgeMs;
  }

  #policyOf(name: string): PullPolicy {
    return this.#policies.for(name, 'fallback');
  }
}
