import { namePattern } from '../../oci/name-pattern.ts';
import { parseReference } from '../../oci/reference.ts';

export interface CopyPolicyOptions {
  /** How many complete copies the cluster shall have of an image that no rule is for. */
  readonly wanted: number;
  /** The first that matches decides. */
  readonly policies: readonly { readonly match: string; readonly wanted: number }[];
}

/** How many complete copies of an image the cluster shall have. */
export class CopyPolicy {
  readonly #wanted: number;
  readonly #rules: readonly { readonly pattern: RegExp; readonly wanted: number }[];

  constructor({ wanted, policies }: CopyPolicyOptions) {
    this.#wanted = wanted;
    this.#rules = policies.map((rule) => ({
      pattern: namePattern(rule.match),
      wanted: rule.wanted,
    }));
  }

  /** No image at all is to be kept. */
  get wantsNothing(): boolean {
    return this.#wanted === 0 && this.#rules.every(({ wanted }) => wanted === 0);
  }

  /**
   * @param names as the runtime has them, tags and digests included; of several, the one that is
   *   to have the most copies counts
   */
  wantedOf(names: readonly string[]): number {
    const repositories = new Set(names.map(repositoryOf).filter((name) => name !== undefined));
    if (repositories.size === 0) return this.#wanted;
    return Math.max(
      ...[...repositories].map(
        (name) => this.#rules.find(({ pattern }) => pattern.test(name))?.wanted ?? this.#wanted,
      ),
    );
  }
}

/** "docker.io/library/nginx" of "docker.io/library/nginx:1"; undefined for image ids. */
function repositoryOf(name: string): string | undefined {
  const reference = parseReference(name);
  if (!reference.ok) return undefined;
  const { registry, repository } = reference.value;
  return `${registry}/${repository}`;
}
