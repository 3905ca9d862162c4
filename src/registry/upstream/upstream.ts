import { setTimeout as sleep } from 'node:timers/promises';
import type { Budgets } from '../budgets.ts';
import type { TokenServices } from './token-service.ts';
import type { UpstreamClient, UpstreamRequest, UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';
import type { UpstreamHealth } from './upstream-health.ts';

/** A request for something in a repository. */
export type AskRequest = Pick<UpstreamRequest, 'method' | 'path' | 'headers'>;

export interface AskOptions {
  readonly signal: AbortSignal;
  /** Called when the first attempt has failed: whoever can help should start now. */
  readonly onTrouble?: () => void;
}

/** After this share of the time in which an outage must be answered, silence is looked into. */
const QUIET_SHARE = 0.25;

/** Timers may fire a little early; a second attempt must not come too early to count. */
const TIMER_SLACK_MS = 10;

/** How many attempts one request gets while the upstream is not known to be down. */
const MAX_ATTEMPTS = 2;

/**
 * One registry that images come from. Asking it means: one attempt, a second one on a fresh
 * connection when the first fails, and a look whether it is alive at all when it is silent. Slow
 * is not failed: an upstream that is alive has {@link Budgets.upstreamHeadersMs} to answer.
 */
export class Upstream {
  /** As images are named: "docker.io", "registry.test:5000". */
  readonly name: string;
  /** Whether nodes are asked before or after it. */
  readonly peers: 'fallback' | 'prefer';
  readonly health: UpstreamHealth;
  readonly #client: UpstreamClient;
  readonly #tokenServices: Pick<TokenServices, 'check'>;
  readonly #budgets: Budgets;
  readonly #now: () => number;
  /** When it last answered a request for content; looks at whether it is alive do not count. */
  #lastAnswerAtMs = Number.NEGATIVE_INFINITY;
  #answerCount = 0;

  constructor(
    options: {
      readonly name: string;
      readonly peers: 'fallback' | 'prefer';
      readonly budgets: Budgets;
    },
    dependencies: {
      client: UpstreamClient;
      health: UpstreamHealth;
      tokenServices: Pick<TokenServices, 'check'>;
      now?: () => number;
    },
  ) {
    this.name = options.name;
    this.peers = options.peers;
    this.#budgets = options.budgets;
    this.#client = dependencies.client;
    this.health = dependencies.health;
    this.#tokenServices = dependencies.tokenServices;
    this.#now = dependencies.now ?? Date.now;
  }

  /**
   * Asks until there is an answer that is not a failure of the upstream, or until it is proven
   * that there will be none. Answers below 500 other than 408 and 429 are answers.
   *
   * @throws UpstreamFailure
   */
  async ask(request: AskRequest, options: AskOptions): Promise<UpstreamResponse> {
    const firstAtMs = this.#now();
    let answersBefore = this.#answerCount;
    for (let attempt = 1; ; attempt += 1) {
      const startedAtMs = this.#now();
      try {
        const headersTimeoutMs = firstAtMs + this.#budgets.upstreamHeadersMs - startedAtMs;
        return await this.#attempt({ ...request, headersTimeoutMs }, attempt, options);
      } catch (error) {
        const failure = UpstreamFailure.from(error, this.#client.host);
        options.onTrouble?.();
        if (!failure.isOutageSign || options.signal.aborted) throw failure;
        if (this.health.outage !== undefined) throw failure.proven();
        const isLate = this.#now() - firstAtMs >= this.#budgets.upstreamHeadersMs;
        if (attempt === MAX_ATTEMPTS || isLate) {
          throw this.#answerCount === answersBefore ? failure.proven() : failure;
        }
        // What others got before the first failure says nothing about the time since.
        answersBefore = this.#answerCount;
        const waitMs = startedAtMs + this.#budgets.proofGapMs + TIMER_SLACK_MS - this.#now();
        if (waitMs > 0)
          await sleep(waitMs, undefined, { signal: options.signal }).catch(() => undefined);
      }
    }
  }

  /** A body from this origin broke off in the middle. */
  recordBodyFailure(failure: UpstreamFailure, origin: string): void {
    if (origin === this.#client.host) this.health.recordFailure(failure, this.#now());
    else void this.#client.recordBodyFailure(failure, origin);
  }

  /** Whether it has ever answered this process: what fails now has worked. */
  get hasAnswered(): boolean {
    return this.#lastAnswerAtMs > Number.NEGATIVE_INFINITY;
  }

  /** Whether blobs would have to come from a place that has just failed. */
  get isBlobOriginDown(): boolean {
    return this.#client.isRedirectTargetDown;
  }

  /** Closes what is open. */
  async close(): Promise<void> {
    this.health.close();
    await this.#client.close();
  }

  async #attempt(
    request: AskRequest & Pick<UpstreamRequest, 'headersTimeoutMs'>,
    attempt: number,
    options: AskOptions,
  ): Promise<UpstreamResponse> {
    const startedAtMs = this.#now();
    const abandoned = new AbortController();
    const over = new AbortController();
    let proof: UpstreamFailure | undefined;
    const quiet = setTimeout(() => {
      void this.#proveSilence(startedAtMs, over.signal).then((failure) => {
        proof = failure;
        if (failure !== undefined) abandoned.abort();
      });
    }, this.#quietMs);
    try {
      return await this.#send({
        ...request,
        fresh: attempt > 1,
        signal: AbortSignal.any([options.signal, abandoned.signal]),
      });
    } catch (error) {
      throw proof ?? error;
    } finally {
      clearTimeout(quiet);
      over.abort();
    }
  }

  /** After this long without a word somebody looks what is the matter, milliseconds. */
  get #quietMs(): number {
    return this.#budgets.outageAnswerMs * QUIET_SHARE;
  }

  /**
   * A request has waited in silence for a while: is anybody there? A look that fails after a wait
   * of its own is, together with the silence, the proof; one that fails at once is repeated. Where
   * others get answers all the while, there is no silence, only too much to do.
   *
   * @param over aborts when the request is over
   * @returns undefined while the upstream may be alive
   */
  async #proveSilence(
    requestStartedAtMs: number,
    over: AbortSignal,
  ): Promise<UpstreamFailure | undefined> {
    let silentSinceMs = requestStartedAtMs;
    while (!over.aborted) {
      const probeStartedAtMs = this.#now();
      const failure = await this.health.probe();
      if (failure === undefined) return undefined;
      if (failure.kind !== 'timeout') {
        const nextMs = probeStartedAtMs + this.#budgets.proofGapMs + TIMER_SLACK_MS;
        await sleep(Math.max(0, nextMs - this.#now()));
        return this.health.probe();
      }
      if (this.#lastAnswerAtMs < silentSinceMs) {
        this.health.recordFailure(failure, silentSinceMs);
        return failure;
      }
      silentSinceMs = this.#now();
      await sleep(this.#quietMs, undefined, { signal: over }).catch(() => undefined);
    }
    return undefined;
  }

  async #send(request: UpstreamRequest): Promise<UpstreamResponse> {
    const startedAtMs = this.#now();
    try {
      const response = await this.#client.send(request);
      const failure =
        failureOf(response, this.#client.host) ?? (await this.#challengeFailure(request, response));
      if (!failure?.isOutageSign) {
        this.#lastAnswerAtMs = this.#now();
        this.#answerCount += 1;
        this.health.recordSuccess();
      }
      if (failure === undefined) return response;
      response.body.on('error', () => undefined);
      response.body.destroy();
      throw failure;
    } catch (error) {
      const failure = UpstreamFailure.from(error, this.#client.host);
      const isItsOwn = failure.origin === undefined || failure.origin === this.#client.host;
      if (!request.signal.aborted && isItsOwn) this.health.recordFailure(failure, startedAtMs);
      throw failure;
    }
  }

  /** A challenge is worth passing on only if somebody hands out tokens. */
  async #challengeFailure(
    request: UpstreamRequest,
    response: UpstreamResponse,
  ): Promise<UpstreamFailure | undefined> {
    if (response.status !== 401 || 'authorization' in request.headers) return undefined;
    return this.#tokenServices.check(response);
  }
}

function failureOf(response: UpstreamResponse, host: string): UpstreamFailure | undefined {
  const { status } = response;
  if (status === 429 || status === 408) {
    const retryAfter = response.headers['retry-after'];
    return new UpstreamFailure('rate_limited', `${host} limits the rate (${status})`, {
      status,
      ...(typeof retryAfter === 'string' ? { retryAfter } : {}),
    });
  }
  if (status >= 500) {
    return new UpstreamFailure('server_error', `${host} answers ${status}`, { status });
  }
  const isOdd = status < 200 || (status > 200 && status < 300 && status !== 206);
  if (isOdd || (status >= 300 && status < 400)) {
    return new UpstreamFailure('bad_answer', `${host} answers ${status}`, { status });
  }
  return undefined;
}
