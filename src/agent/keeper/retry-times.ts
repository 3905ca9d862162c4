import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';

export interface RetryTimesOptions {
  /** After the first failure, milliseconds; doubled by every further try. */
  readonly firstMs: number;
  readonly maxMs: number;
  /** After a failure that only people can mend. */
  readonly hopelessMs: number;
  /** How many blobs are remembered. */
  readonly maxBlobs: number;
}

/** What a try came to; hopeless: only people can mend what it failed for. */
export type TryOutcome = 'done' | 'failed' | 'hopeless';

interface Tries {
  readonly count: number;
  readonly untilMs: number;
  readonly last: TryOutcome;
}

/**
 * When a blob may be tried again. Success counts as a try, too: one that is gone or wrong again
 * soon, time after time, would otherwise be fetched without end.
 */
export class RetryTimes {
  readonly #options: RetryTimesOptions;
  readonly #tries: LRUCache<Digest, Tries>;

  constructor(options: RetryTimesOptions) {
    this.#options = options;
    this.#tries = new LRUCache({ max: options.maxBlobs });
  }

  /** @param nowMs milliseconds since the epoch, as everywhere here */
  isDue(digest: Digest, nowMs: number): boolean {
    const untilMs = this.#tries.get(digest)?.untilMs ?? 0;
    // Far in the future, it was written before the machine's time was set back.
    return nowMs >= untilMs || untilMs - nowMs > this.#options.hopelessMs;
  }

  /** @returns whether the try before this one failed, too */
  record(
    digest: Digest,
    attempt: { readonly nowMs: number; readonly outcome: TryOutcome },
  ): boolean {
    const { nowMs, outcome } = attempt;
    const before = this.#tries.get(digest);
    const count = (before?.count ?? 0) + 1;
    this.#tries.set(digest, {
      count,
      untilMs: nowMs + this.#waitMs(outcome, count),
      last: outcome,
    });
    return before !== undefined && before.last !== 'done';
  }

  #waitMs(outcome: TryOutcome, count: number): number {
    const { firstMs, maxMs, hopelessMs } = this.#options;
    if (outcome === 'hopeless') return hopelessMs;
    if (outcome === 'done' && count === 1) return 0;
    return Math.min(firstMs * 2 ** (count - (outcome === 'done' ? 2 : 1)), maxMs);
  }
}
