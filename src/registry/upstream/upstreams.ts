import { allowsRegistry, type RegistryRules } from '../../policy/registry-rules.ts';
import type { Upstream } from './upstream.ts';

export interface UpstreamsOptions extends RegistryRules {
  /** How long requests may still use an upstream that is no longer wanted, milliseconds. */
  readonly drainMs: number;
}

/** What is to hold from now on. */
export interface UpstreamsChange {
  readonly policy: RegistryRules;
  /** As in the constructor. */
  readonly create: (name: string) => Upstream;
  /** Whether what is configured for an upstream itself differs from before. */
  readonly isChanged: (name: string) => boolean;
}

/** How many registries are kept that only a client has named; the one unused longest goes. */
const MAX_UNCONFIGURED = 256;

/** Who uses an upstream, and what is to happen when nobody does any more. */
interface Use {
  requests: number;
  onIdle: (() => void) | undefined;
}

/** The registries that images come from, made when first asked for. */
export class Upstreams {
  readonly #drainMs: number;
  #policy: RegistryRules;
  #create: (name: string) => Upstream;
  readonly #byName = new Map<string, Upstream>();
  readonly #uses = new WeakMap<Upstream, Use>();
  /** No longer found by name, and still in use; the values close them at once. */
  readonly #retired = new Map<Upstream, () => Promise<void>>();

  /** @param dependencies.create makes the upstream of a registry that policy allows */
  constructor(options: UpstreamsOptions, dependencies: { create: (name: string) => Upstream }) {
    this.#policy = options;
    this.#drainMs = options.drainMs;
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
    if (!this.allows(name)) return undefined;
    const upstream = this.#create(name);
    this.#byName.set(name, upstream);
    this.#dropOldest();
    return upstream;
  }

  /** Whether policy lets clients ask the registry of this name; it need not have been asked for yet. */
  allows(name: string): boolean {
    return allowsRegistry(this.#policy, name);
  }

  /**
   * Counts a request that uses an upstream, so that it is not closed before the request is over.
   *
   * @returns to be called once, when it is
   */
  hold(upstream: Upstream): () => void {
    const use = this.#useOf(upstream);
    use.requests += 1;
    return () => {
      use.requests -= 1;
      if (use.requests === 0) use.onIdle?.();
    };
  }

  /** Those that have been asked for so far. */
  all(): Upstream[] {
    return [...this.#byName.values()];
  }

  /**
   * Takes a new policy over. Upstreams that did not change stay as they are, with their
   * connections and what is known of their health. Others are there anew for new requests, or no
   * longer; requests that use the old ones may finish.
   *
   * @returns names of upstreams that were in use and were replaced or given up
   * @throws what making an upstream throws; nothing has changed then
   */
  apply(change: UpstreamsChange): string[] {
    const { policy, create, isChanged } = change;
    const isKept = (name: string): boolean => allowsRegistry(policy, name) && !isChanged(name);
    const leaving = [...this.#byName].filter(([name]) => !isKept(name));
    const replacements = new Map<string, Upstream>();
    try {
      for (const [name] of leaving)
        if (allowsRegistry(policy, name)) replacements.set(name, create(name));
    } catch (error) {
      for (const upstream of replacements.values()) void upstream.close();
      throw error;
    }
    this.#policy = policy;
    this.#create = create;
    for (const [name, upstream] of leaving) {
      const replacement = replacements.get(name);
      if (replacement === undefined) this.#byName.delete(name);
      else this.#byName.set(name, replacement);
      this.#retire(upstream);
    }
    return leaving.map(([name]) => name);
  }

  /** Closes every connection. */
  async close(): Promise<void> {
    const retired = [...this.#retired.values()];
    await Promise.all([
      ...retired.map((close) => close()),
      ...this.all().map((upstream) => upstream.close()),
    ]);
  }

  #dropOldest(): void {
    const { configured } = this.#policy;
    const unconfigured = [...this.#byName].filter(([name]) => !configured.includes(name));
    const [oldest] = unconfigured;
    if (oldest === undefined || unconfigured.length <= MAX_UNCONFIGURED) return;
    this.#byName.delete(oldest[0]);
    this.#retire(oldest[1]);
  }

  /** Closes an upstream when the last request that uses it is over, or has taken too long. */
  #retire(upstream: Upstream): void {
    const use = this.#useOf(upstream);
    if (use.requests === 0) {
      void upstream.close();
      return;
    }
    const close = async (): Promise<void> => {
      clearTimeout(timer);
      use.onIdle = undefined;
      this.#retired.delete(upstream);
      await upstream.close();
    };
    const timer = setTimeout(() => void close(), this.#drainMs);
    timer.unref();
    use.onIdle = () => void close();
    this.#retired.set(upstream, close);
  }

  #useOf(upstream: Upstream): Use {
    const known = this.#uses.get(upstream);
    if (known !== undefined) return known;
    const use: Use = { requests: 0, onIdle: undefined };
    this.#uses.set(upstream, use);
    return use;
  }
}
