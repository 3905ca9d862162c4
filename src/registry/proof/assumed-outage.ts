import type { PullUpstream } from '../pull-request.ts';
import { UpstreamFailure } from '../upstream/upstream-failure.ts';
import type { UpstreamResponse } from '../upstream/upstream-client.ts';
import type { Outage } from '../upstream/upstream-health.ts';

/**
 * An upstream as a registry that has only just started would know it in a proven outage: it
 * refuses connections, and has never answered. Nothing is ever sent to it, and nothing that becomes
 * of requests is remembered.
 */
export class AssumedOutage implements PullUpstream {
  readonly name: string;
  readonly peers: 'fallback' | 'prefer';
  readonly outage: Outage;
  readonly hasAnswered = false;
  readonly isBlobOriginDown = false;

  constructor(
    options: Pick<PullUpstream, 'name' | 'peers'>,
    dependencies: { now?: () => number } = {},
  ) {
    this.name = options.name;
    this.peers = options.peers;
    const message = `${this.name} counts as dead for this request`;
    const cause = new UpstreamFailure('refused', message, { origin: this.name, isProven: true });
    this.outage = { sinceMs: (dependencies.now ?? Date.now)(), cause, savedRequests: 0 };
  }

  /** @throws UpstreamFailure always, at once */
  async ask(): Promise<UpstreamResponse> {
    throw this.outage.cause;
  }

  recordBodyFailure(): void {
    // It gives no bodies.
  }

  recordSaved(): void {
    // Nothing was saved: nobody is waiting for this image.
  }
}

/** Which upstreams clients may name, each in an outage that is assumed for one request alone. */
export class AssumedOutages {
  readonly #allows: (name: string) => boolean;
  readonly #peersOf: (name: string) => PullUpstream['peers'];

  /**
   * @param dependencies.allows whether policy lets clients ask this registry
   * @param dependencies.peersOf when its nodes are asked, as configured
   */
  constructor(dependencies: {
    allows: (name: string) => boolean;
    peersOf: (name: string) => PullUpstream['peers'];
  }) {
    this.#allows = dependencies.allows;
    this.#peersOf = dependencies.peersOf;
  }

  /** @returns undefined when policy does not allow it */
  get(name: string): PullUpstream | undefined {
    if (!this.#allows(name)) return undefined;
    return new AssumedOutage({ name, peers: this.#peersOf(name) });
  }

  /** There is nothing to close. */
  hold(): () => void {
    return () => undefined;
  }
}
