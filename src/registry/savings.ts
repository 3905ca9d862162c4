import { fallbackCause, wouldHaveFailed, type FallbackCause } from './fallback.ts';
import type { RegistryMetrics } from './registry-metrics.ts';
import type { PullRequest } from './pull-request.ts';

/** What has been counted since the start of the process. */
export interface SavingsTotals {
  /** Answers that came from nodes or memory, in part or in full, because of the upstream. */
  readonly fallbacks: number;
  /** Of those, requests that would have failed without them, and did not. */
  readonly savedRequests: number;
}

/** Counts the requests that were answered in spite of their upstream. */
export class Savings {
  readonly #metrics: Pick<RegistryMetrics, 'fallbacks' | 'savedRequests' | 'registryLabel'>;
  #fallbacks = 0;
  #savedRequests = 0;

  constructor(dependencies: {
    metrics: Pick<RegistryMetrics, 'fallbacks' | 'savedRequests' | 'registryLabel'>;
  }) {
    this.#metrics = dependencies.metrics;
  }

  get totals(): SavingsTotals {
    return { fallbacks: this.#fallbacks, savedRequests: this.#savedRequests };
  }

  /**
   * A request is over.
   *
   * @param done.source as in {@link fallbackCause}
   * @param done.isComplete the client has got all of what it asked for
   * @returns why it was not the upstream that gave it
   */
  note(
    request: Pick<PullRequest, 'policy' | 'trace' | 'upstream'>,
    done: { readonly kind: string; readonly source: string; readonly isComplete: boolean },
  ): FallbackCause | undefined {
    const { policy, trace, upstream } = request;
    const { isComplete, kind, source } = done;
    const cause = fallbackCause({
      source,
      attempts: trace.attempts,
      passedOver: trace.passedOver,
      prefersNodes: policy.peers === 'prefer',
    });
    if (cause === undefined) return undefined;
    this.#fallbacks += 1;
    this.#metrics.fallbacks.inc({ cause });
    if (isComplete && wouldHaveFailed(cause)) {
      this.#savedRequests += 1;
      const registry = this.#metrics.registryLabel(upstream.name);
      this.#metrics.savedRequests.inc({ registry, kind });
      upstream.recordSaved();
    }
    return cause;
  }
}
