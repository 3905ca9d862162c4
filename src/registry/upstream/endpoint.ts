import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Budgets } from '../budgets.ts';
import { credentialsFingerprint } from '../credentials.ts';
import { RateLimits, type Permit, type RateLimit } from './rate-limit.ts';
import type { TokenServices } from './token-service.ts';
import { discard } from './upstream-answer.ts';
import type { UpstreamClient, UpstreamRequest, UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';
import type { Outage, UpstreamHealth } from './upstream-health.ts';

/** A request for something in a repository. */
export type AskRequest = Pick<UpstreamRequest, 'method' | 'path' | 'headers'>;

export interface EndpointAskOptions {
  readonly signal: AbortSignal;
  /** Called when an attempt has failed: whoever can help should start now. */
  readonly onTrouble?: () => void;
  /** For all attempts together, milliseconds; as the budgets say unless told. */
  readonly headersMs?: number;
}

/** After this share of the time in which an outage must be answered, silence is looked into. */
const QUIET_SHARE = 0.25;

/** Timers may fire a little early; a second attempt must not come too early to count. */
const TIMER_SLACK_MS = 10;

/** How many attempts one request gets while the endpoint is not known to be down. */
const MAX_ATTEMPTS = 2;

/**
 * One URL at which a registry, or a copy of it, is asked. Asking it means: one attempt, a second
 * one on a fresh connection when the first fails, and a look whether it is alive at all when it is
 * silent. Slow is not failed: one that is alive has {@link Budgets.upstreamHeadersMs} to answer.
 */
export class Endpoint {
  readonly #forwardsCredentials: boolean;
  readonly #client: UpstreamClient;
  readonly #health: UpstreamHealth;
  readonly #tokenServices: Pick<TokenServices, 'check'>;
  readonly #budgets: Budgets;
  readonly #limits: RateLimits;
  /** Of this object, so that what stands for credentials means nothing elsewhere. */
  readonly #salt = randomBytes(16);
  readonly #now: () => number;
  /** When it last answered a request for content; looks at whether it is alive do not count. */
  #lastAnswerAtMs = Number.NEGATIVE_INFINITY;
  #answerCount = 0;

  constructor(
    options: {
      readonly budgets: Budgets;
      /** Whether it gets the client's Authorization; it does unless told. */
      readonly forwardsCredentials?: boolean;
    },
    dependencies: {
      client: UpstreamClient;
      health: UpstreamHealth;
      tokenServices: Pick<TokenServices, 'check'>;
      now?: () => number;
    },
  ) {
    this.#budgets = options.budgets;
    this.#forwardsCredentials = options.forwardsCredentials ?? true;
    this.#client = dependencies.client;
    this.#health = dependencies.health;
    this.#tokenServices = dependencies.tokenServices;
    this.#now = dependencies.now ?? Date.now;
    this.#limits = new RateLimits({ host: this.host }, { now: this.#now });
  }

  /** "cache.test" or "cache.test:5000". */
  get host(): string {
    return this.#client.host;
  }

  /** The outage that is on, if one is. */
  get outage(): Outage | undefined {
    return this.#health.outage;
  }

  /** What it has said last about how much may be asked of it. */
  get rateLimit(): RateLimit | undefined {
    return this.#limits.last;
  }

  /** Whether it sees the client's credentials, so that 401 and 403 are about them. */
  get judgesClients(): boolean {
    return this.#forwardsCredentials && !this.#client.hasOwnCredentials;
  }

  /**
   * Asks until there is an answer that is not a failure of the endpoint, or until it is proven
   * that there will be none. Answers below 500 other than 408 and 429 are answers.
   *
   * @throws UpstreamFailure
   */
  async ask(request: AskRequest, options: EndpointAskOptions): Promise<UpstreamResponse> {
    const { headersMs = this.#budgets.upstreamHeadersMs } = options;
    const firstAtMs = this.#now();
    let answersBefore = this.#answerCount;
    for (let attempt = 1; ; attempt += 1) {
      const startedAtMs = this.#now();
      try {
        const headersTimeoutMs = firstAtMs + headersMs - startedAtMs;
        return await this.#attempt({ ...request, headersTimeoutMs }, attempt, options);
      } catch (error) {
        const failure = UpstreamFailure.from(error, this.host);
        options.onTrouble?.();
        if (!failure.isOutageSign || options.signal.aborted) throw failure;
        if (this.#health.outage !== undefined) throw failure.proven();
        const isLate = this.#now() - firstAtMs >= headersMs;
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

  /** A body from it, or from where it redirects, broke off in the middle. */
  recordBodyFailure(failure: UpstreamFailure, origin: string): void {
    if (origin === this.host) this.#health.recordFailure(failure, this.#now());
    else void this.#client.recordBodyFailure(failure, origin);
  }

  /** A request was answered in full that it would have failed. */
  recordSaved(): void {
    this.#health.recordSaved();
  }

  /** Whether it has ever answered this process: what fails now has worked. */
  get hasAnswered(): boolean {
    return this.#lastAnswerAtMs > Number.NEGATIVE_INFINITY;
  }

  /** Whether blobs would have to come from a place that has just failed. */
  get isBlobOriginDown(): boolean {
    return this.#client.isRedirectTargetDown;
  }

  /**
   * Looks whether anybody answers, on a connection of its own. Everybody who asks meanwhile shares
   * the look.
   */
  async look(): Promise<boolean> {
    return (await this.#health.probe()) === undefined;
  }

  /** Closes what is open. */
  async close(): Promise<void> {
    this.#health.close();
    await this.#client.close();
  }

  async #attempt(
    request: AskRequest & Pick<UpstreamRequest, 'headersTimeoutMs'>,
    attempt: number,
    options: Pick<EndpointAskOptions, 'signal'>,
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
      const failure = ofOther(await this.#health.probe());
      if (failure === undefined) return undefined;
      if (failure.kind !== 'timeout') {
        const nextMs = probeStartedAtMs + this.#budgets.proofGapMs + TIMER_SLACK_MS;
        await sleep(Math.max(0, nextMs - this.#now()));
        return ofOther(await this.#health.probe());
      }
      if (this.#lastAnswerAtMs < silentSinceMs) {
        this.#health.recordFailure(failure, silentSinceMs);
        return failure;
      }
      silentSinceMs = this.#now();
      await sleep(this.#quietMs, undefined, { signal: over }).catch(() => undefined);
    }
    return undefined;
  }

  async #send(request: UpstreamRequest): Promise<UpstreamResponse> {
    const headers = this.judgesClients ? request.headers : withoutAuthorization(request.headers);
    const credentials = credentialsFingerprint(headers['authorization'], this.#salt);
    const permit = await this.#limits.enter(credentials, request.signal);
    try {
      return await this.#sendWith(permit, { ...request, headers });
    } finally {
      permit.done();
    }
  }

  async #sendWith(permit: Permit, request: UpstreamRequest): Promise<UpstreamResponse> {
    const startedAtMs = this.#now();
    try {
      const response = await this.#client.send(request);
      const failure =
        this.#failureOf(response, permit) ?? (await this.#challengeFailure(request, response));
      if (!failure?.isOutageSign) {
        this.#lastAnswerAtMs = this.#now();
        this.#answerCount += 1;
        this.#health.recordSuccess();
      }
      if (failure === undefined) return response;
      discard(response);
      throw failure;
    } catch (error) {
      const failure = UpstreamFailure.from(error, this.host);
      const isItsOwn = failure.origin === undefined || failure.origin === this.host;
      if (!request.signal.aborted && isItsOwn) this.#health.recordFailure(failure, startedAtMs);
      throw failure;
    }
  }

  #failureOf(response: UpstreamResponse, permit: Permit): UpstreamFailure | undefined {
    const { status } = response;
    const { host } = this;
    // Where it redirects has limits of its own.
    if (response.host !== host) return failureOf(response, host);
    this.#limits.note(response);
    if (status === 429) {
      const retryAfter = String(Math.ceil(permit.limited(response) / 1000));
      const message = `${host} limits the rate (${status})`;
      return new UpstreamFailure('rate_limited', message, { status, retryAfter });
    }
    return failureOf(response, host);
  }

  /** A challenge is worth passing on only if somebody hands out tokens. */
  async #challengeFailure(
    request: UpstreamRequest,
    response: UpstreamResponse,
  ): Promise<UpstreamFailure | undefined> {
    // One that it would be no use to meet here is not passed on at all.
    const isPassedOn = this.judgesClients && !('authorization' in request.headers);
    if (response.status !== 401 || !isPassedOn) return undefined;
    return this.#tokenServices.check(response);
  }
}

/** A failure, unless it is this machine's own: who could not look has not seen anything. */
function ofOther(failure: UpstreamFailure | undefined): UpstreamFailure | undefined {
  return failure?.kind === 'local' ? undefined : failure;
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

function withoutAuthorization(headers: AskRequest['headers']): Record<string, string> {
  const entries = Object.entries(headers);
  return Object.fromEntries(entries.filter(([name]) => name.toLowerCase() !== 'authorization'));
}
