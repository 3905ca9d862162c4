import { LRUCache } from 'lru-cache';
import { within } from '../../telemetry/within.ts';
import { headerOf } from './upstream-answer.ts';
import type { UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** What an endpoint has said last about how much may be asked of it. */
export interface RateLimit {
  /** Requests in a window. */
  readonly limit: number | undefined;
  /** Of these, how many were left. */
  readonly remaining: number;
  readonly windowSeconds: number | undefined;
  /** When it said so, milliseconds since the epoch. */
  readonly atMs: number;
}

/** How long nobody asks again after a 429 that names no time, milliseconds. */
const DEFAULT_WAIT_MS = 5000;
const MIN_WAIT_MS = 1000;
/** However long a registry wants to be left alone, it is looked at this often, milliseconds. */
const MAX_WAIT_MS = 60_000;
/** How long others wait for the one that goes first after the time is over, milliseconds. */
const TRIAL_MS = 2000;
/** How many credentials are remembered; the ones limited longest ago are forgotten. */
const MAX_CLOCKS = 1000;
/** Greater numbers are no waits, but times: seconds since the epoch. */
const MAX_WAIT_SECONDS = 1_000_000_000;

/** One for each of the credentials that were told to wait. */
interface Clock {
  readonly untilMs: number;
  /** Someone has gone first, now that the time is over. */
  trial?: { readonly startedAtMs: number; readonly isOver: Promise<void> };
}

/** A request that may be sent; to be told what came of it. */
export interface Permit {
  /**
   * The answer was 429.
   *
   * @returns how long these credentials are left alone, milliseconds
   */
  limited(response: Pick<UpstreamResponse, 'headers'>): number;
  /** The request is over. To be called last, in any case. */
  done(): void;
}

/**
 * The rate limits of one endpoint. Whoever was told to wait has a clock of its own: until it has
 * run out, nothing is sent with the same credentials; then one request goes first, and others
 * follow when it had another answer.
 */
export class RateLimits {
  readonly #host: string;
  readonly #now: () => number;
  readonly #clocks = new LRUCache<string, Clock>({ max: MAX_CLOCKS });
  #last: RateLimit | undefined;

  /** @param options.host of the endpoint, for messages */
  constructor(options: { readonly host: string }, dependencies: { now?: () => number } = {}) {
    this.#host = options.host;
    this.#now = dependencies.now ?? Date.now;
  }

  /** What the endpoint said last; undefined when it said nothing, or so long ago that it is over. */
  get last(): RateLimit | undefined {
    const last = this.#last;
    if (last?.windowSeconds === undefined) return last;
    return last.atMs + last.windowSeconds * 1000 > this.#now() ? last : undefined;
  }

  /** Reads what an answer says about limits: RateLimit-Limit and RateLimit-Remaining. */
  note(response: Pick<UpstreamResponse, 'headers'>): void {
    const remaining = quotaOf(headerOf(response, 'ratelimit-remaining'));
    if (remaining === undefined) return;
    const limit = quotaOf(headerOf(response, 'ratelimit-limit'));
    this.#last = {
      limit: limit?.count,
      remaining: remaining.count,
      windowSeconds: remaining.windowSeconds ?? limit?.windowSeconds,
      atMs: this.#now(),
    };
  }

  /**
   * Asks whether a request may be sent.
   *
   * @param credentials stands for what the request is sent with, see credentialsFingerprint
   * @throws UpstreamFailure of the kind "rate_limited" while it may not
   */
  async enter(credentials: string, signal: AbortSignal): Promise<Permit> {
    for (;;) {
      const clock = this.#clocks.get(credentials);
      if (clock === undefined) return this.#permit(credentials);
      const leftMs = clock.untilMs - this.#now();
      if (leftMs > 0) throw this.#failure(leftMs);
      if (clock.trial === undefined) return this.#goFirst(credentials, clock);
      const trialLeftMs = clock.trial.startedAtMs + TRIAL_MS - this.#now();
      if (trialLeftMs <= 0) this.#clocks.delete(credentials);
      else await within(trialLeftMs, clock.trial.isOver, signal);
      if (signal.aborted) throw new UpstreamFailure('cancelled', 'The client has gone');
    }
  }

  #goFirst(credentials: string, clock: Clock): Permit {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    clock.trial = { startedAtMs: this.#now(), isOver: promise };
    return {
      ...this.#permit(credentials),
      done: () => {
        // Unless there is a new one. Any other failure is not for these clocks to deal with.
        if (this.#clocks.get(credentials) === clock) this.#clocks.delete(credentials);
        resolve(undefined);
      },
    };
  }

  #permit(credentials: string): Permit {
    return {
      limited: (response) => {
        const nowMs = this.#now();
        const waitMs = waitOf(response, nowMs);
        this.#clocks.set(credentials, { untilMs: nowMs + waitMs });
        return waitMs;
      },
      done: () => undefined,
    };
  }

  #failure(leftMs: number): UpstreamFailure {
    const seconds = Math.ceil(leftMs / 1000);
    return new UpstreamFailure(
      'rate_limited',
      `${this.#host} limits the rate (429) and is left alone for ${seconds} s`,
      { status: 429, retryAfter: String(seconds) },
    );
  }
}

/** "100;w=21600": how many, and in how many seconds. */
function quotaOf(text: string | undefined): { count: number; windowSeconds?: number } | undefined {
  const match = /^\s*(\d{1,15})(?:\s*;\s*w=(\d{1,9}))?/.exec(text ?? '');
  if (match?.[1] === undefined) return undefined;
  const [, count, windowSeconds] = match;
  return {
    count: Number(count),
    ...(windowSeconds === undefined ? {} : { windowSeconds: Number(windowSeconds) }),
  };
}

/**
 * How long a 429 wants its client to wait, RFC 9110 10.2.3: seconds or a date; Docker Hub also
 * names seconds since the epoch, in a header of its own.
 */
function waitOf(response: Pick<UpstreamResponse, 'headers'>, nowMs: number): number {
  const wanted =
    waitOfText(headerOf(response, 'retry-after'), nowMs) ??
    waitOfText(headerOf(response, 'x-retry-after'), nowMs) ??
    DEFAULT_WAIT_MS;
  return Math.min(Math.max(wanted, MIN_WAIT_MS), MAX_WAIT_MS);
}

function waitOfText(text: string | undefined, nowMs: number): number | undefined {
  const trimmed = text?.trim() ?? '';
  if (/^\d{1,12}$/.test(trimmed)) {
    const seconds = Number(trimmed);
    return seconds > MAX_WAIT_SECONDS ? seconds * 1000 - nowMs : seconds * 1000;
  }
  // Date.parse takes almost anything for a date; those of HTTP begin with a day.
  const atMs = /^[A-Z][a-z]{2,8},? /.test(trimmed) ? Date.parse(trimmed) : Number.NaN;
  return Number.isNaN(atMs) ? undefined : atMs - nowMs;
}
