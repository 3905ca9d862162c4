import { AddressGuard } from './address-guard.ts';
import { patternOf } from '../policy.ts';
import type { Upstream } from './upstream.ts';

/** Which registries may be asked on behalf of clients. */
export interface UpstreamPolicy {
  /** Patterns of registry names, "*" standing for any part of one. */
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  /** Names that the configuration describes; no other may stand for this host or its links. */
  readonly configured: readonly string[];
}

/** How many registries are kept that only a client has named; the one unused longest goes. */
const MAX_UNCONFIGURED = 256;

/** The registries that images come from, made when first asked for. */
export class Upstreams {
  readonly #policy: UpstreamPolicy;
  readonly #create: (name: string) => Upstream;
  readonly #byName = new Map<string, Upstream>();

  /** @param dependencies.create makes the upstream of a registry that policy allows */
  constructor(policy: UpstreamPolicy, dependencies: { create: (name: string) => Upstream }) {
    this.#policy = policy;
    this.#create = dependencies.create;
  }

  /**
   * @param name a registry's name, normalised
   * @returns undefined when policy does not allow it
   */
  get(name: string): Upstream | undefined {
    const known = this.#byName.get(name);
    if (known !== undefined) {
      this.#byName.delete(name);
      this.#byName.set(name, known);
      return known;
    }
    const { allow, configured, deny } = this.#policy;
    if (!configured.includes(name) && AddressGuard.guards(name)) return undefined;
    if (deny.some((pattern) => patternOf(pattern).test(name))) return undefined;
    if (!allow.some((pattern) => patternOf(pattern).test(name))) return undefined;
    const upstream = this.#create(name);
    this.#byName.set(name, upstream);
    void this.#dropOldest();
    return upstream;
  }

  /** Those that have been asked for so far. */
  all(): Upstream[] {
    return [...this.#byName.values()];
  }

  /** Closes every connection. */
  async close(): Promise<void> {
    await Promise.all(this.all().map((upstream) => upstream.close()));
  }

  async #dropOldest(): Promise<void> {
    const { configured } = this.#policy;
    const unconfigured = [...this.#byName].filter(([name]) => !configured.includes(name));
    const [oldest] = unconfigured;
    if (oldest === undefined || unconfigured.length <= MAX_UNCONFIGURED) return;
    this.#byName.delete(oldest[0]);
    await oldest[1].close();
  }
}
