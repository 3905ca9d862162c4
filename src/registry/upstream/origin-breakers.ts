import {
  BrokenCircuitError,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
  type CircuitBreakerPolicy,
} from 'cockatiel';
import { LRUCache } from 'lru-cache';
import { UpstreamFailure } from './upstream-failure.ts';

export interface OriginBreakersOptions {
  /** How long an origin is left alone before it is tried again, milliseconds. */
  readonly retryAfterMs: number;
}

/** Failures in a row after which an origin is left alone. */
const FAILURES = 2;
const MAX_ORIGINS = 64;

/**
 * A circuit breaker for each place that an upstream sends its clients to: a CDN that is down says
 * nothing about the registry, but blobs need not wait for it every time.
 */
export class OriginBreakers {
  readonly #byOrigin: LRUCache<string, CircuitBreakerPolicy>;
  readonly #options: OriginBreakersOptions;

  constructor(options: OriginBreakersOptions) {
    this.#options = options;
    this.#byOrigin = new LRUCache({ max: MAX_ORIGINS });
  }

  /**
   * Does something at an origin, unless it is being left alone.
   *
   * @throws UpstreamFailure of the kind "circuit_open" at once when it is; else what `run` throws
   */
  async run<T>(origin: string, run: () => Promise<T>): Promise<T> {
    try {
      return await this.#breaker(origin).execute(run);
    } catch (error) {
      if (!(error instanceof BrokenCircuitError)) throw error;
      throw new UpstreamFailure('circuit_open', `${origin} has just failed twice`, { origin });
    }
  }

  /** Counts a failure that came to light later, in the middle of a body. */
  async recordFailure(failure: UpstreamFailure, origin: string): Promise<void> {
    await this.run(origin, () => Promise.reject(failure)).catch(() => undefined);
  }

  /** Whether the origin is being left alone at this moment. */
  isOpen(origin: string): boolean {
    return this.#byOrigin.get(origin)?.state === CircuitState.Open;
  }

  #breaker(origin: string): CircuitBreakerPolicy {
    const known = this.#byOrigin.get(origin);
    if (known !== undefined) return known;
    const breaker = circuitBreaker(
      handleWhen((error) => error instanceof UpstreamFailure && error.isOutageSign),
      {
        halfOpenAfter: this.#options.retryAfterMs,
        breaker: new ConsecutiveBreaker(FAILURES),
      },
    );
    this.#byOrigin.set(origin, breaker);
    return breaker;
  }
}
