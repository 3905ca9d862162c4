import type { Budgets } from '../budgets.ts';
import type { OpenedBody } from '../sources/source.ts';
import type { AskRequest, Endpoint, EndpointAskOptions } from './endpoint.ts';
import { EndpointOutcomes } from './endpoint-outcomes.ts';
import { discard } from './upstream-answer.ts';
import type { UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';
import type { Outage } from './upstream-health.ts';

export type { AskRequest } from './endpoint.ts';

export interface AskOptions extends Pick<EndpointAskOptions, 'signal' | 'onTrouble'> {
  /** The endpoint to begin with, as an earlier answer named it; the first one unless told. */
  readonly endpoint?: number | undefined;
}

interface Place {
  readonly endpoint: Endpoint;
  readonly index: number;
}

/**
 * One registry that images come from, at one URL or several. They are asked in order: the next one
 * when an endpoint fails, does not have what is asked for, or refuses credentials that are not the
 * client's. Those in outage are left out while another one is up.
 */
export class Upstream {
  /** As images are named: "docker.io", "registry.test:5000". */
  readonly name: string;
  /** Whether nodes are asked before or after it. */
  readonly peers: 'fallback' | 'prefer';
  readonly endpoints: readonly Endpoint[];
  readonly #headersMs: number;
  readonly #now: () => number;

  constructor(
    options: {
      readonly name: string;
      readonly peers: 'fallback' | 'prefer';
      readonly budgets: Pick<Budgets, 'upstreamHeadersMs'>;
    },
    dependencies: {
      /** At least one, in the order in which they are asked. */
      endpoints: readonly Endpoint[];
      now?: () => number;
    },
  ) {
    this.name = options.name;
    this.peers = options.peers;
    this.#headersMs = options.budgets.upstreamHeadersMs;
    this.endpoints = dependencies.endpoints;
    this.#now = dependencies.now ?? Date.now;
  }

  /**
   * The outage that is on: all endpoints are down, since the last of them failed, for its reason.
   */
  get outage(): Outage | undefined {
    let newest: Outage | undefined;
    for (const { outage } of this.endpoints) {
      if (outage === undefined) return undefined;
      if (newest === undefined || outage.sinceMs > newest.sinceMs) newest = outage;
    }
    return newest;
  }

  /** Whether it has ever answered this process: what fails now has worked. */
  get hasAnswered(): boolean {
    return this.endpoints.some(({ hasAnswered }) => hasAnswered);
  }

  /** Whether blobs would have to come from places that have just failed. */
  get isBlobOriginDown(): boolean {
    return (
      this.endpoints.some(({ isBlobOriginDown }) => isBlobOriginDown) &&
      this.endpoints.every(({ isBlobOriginDown, outage }) => isBlobOriginDown || outage)
    );
  }

  /**
   * Asks until an endpoint gives what is asked for, refuses the client, or none is left. A failure
   * of one endpoint outweighs that others do not have it: it might. Answers below 500 other than
   * 408 and 429 are answers.
   *
   * @throws UpstreamFailure
   */
  async ask(request: AskRequest, options: AskOptions): Promise<UpstreamResponse> {
    const up = this.#order(options.endpoint).filter(({ endpoint }) => !endpoint.outage);
    const outcomes = new EndpointOutcomes();
    if (up.length === 0) return this.#askAll(request, options, outcomes);
    for (const { outage } of this.endpoints) if (outage) outcomes.failed(outage.cause.proven());
    const endAtMs = this.#now() + this.#headersMs;
    for (const [at, { endpoint, index }] of up.entries()) {
      const leftMs = endAtMs - this.#now();
      if (leftMs <= 0 && at > 0) break;
      // One that is merely slow must leave time for the next.
      const headersMs = at === up.length - 1 ? leftMs : leftMs / 2;
      try {
        const response = await endpoint.ask(request, { ...options, headersMs });
        const answer = outcomes.answered({ ...response, endpoint: index }, endpoint);
        if (answer !== undefined) return answer;
      } catch (error) {
        const failure = UpstreamFailure.from(error, endpoint.host);
        if (options.signal.aborted) {
          outcomes.close();
          throw failure;
        }
        outcomes.failed(failure);
      }
    }
    return outcomes.conclude();
  }

  /** A body from it broke off in the middle. */
  recordBodyFailure(failure: UpstreamFailure, body: Pick<OpenedBody, 'endpoint' | 'origin'>): void {
    this.endpoints[body.endpoint ?? 0]?.recordBodyFailure(failure, body.origin ?? '');
  }

  /** A request was answered in full that this upstream would have failed. */
  recordSaved(): void {
    for (const endpoint of this.endpoints) endpoint.recordSaved();
  }

  /** Looks whether any of its endpoints answers, whatever it answers. */
  async look(): Promise<boolean> {
    const answers = await Promise.all(this.endpoints.map((endpoint) => endpoint.look()));
    return answers.includes(true);
  }

  /** Closes what is open. */
  async close(): Promise<void> {
    await Promise.all(this.endpoints.map((endpoint) => endpoint.close()));
  }

  #order(first = 0): Place[] {
    const all = this.endpoints.map((endpoint, index) => ({ endpoint, index }));
    const isFirst = ({ index }: Place): boolean => index === first;
    return [...all.filter(isFirst), ...all.filter((place) => !isFirst(place))];
  }

  /** All are down: asked at once, so that several cost no more time than one would. */
  async #askAll(
    request: AskRequest,
    options: AskOptions,
    outcomes: EndpointOutcomes,
  ): Promise<UpstreamResponse> {
    const running = new Set<AbortController>();
    const found = Promise.withResolvers<UpstreamResponse>();
    let isFound = false;
    const askOne = async ({ endpoint, index }: Place): Promise<void> => {
      const stop = new AbortController();
      const signal = AbortSignal.any([options.signal, stop.signal]);
      running.add(stop);
      try {
        const response = await endpoint.ask(request, { ...options, signal });
        running.delete(stop);
        if (isFound) {
          discard(response);
          return;
        }
        const answer = outcomes.answered({ ...response, endpoint: index }, endpoint);
        if (answer === undefined) return;
        isFound = true;
        for (const other of running) other.abort();
        found.resolve(answer);
      } catch (error) {
        outcomes.failed(UpstreamFailure.from(error, endpoint.host));
      }
    };
    const asked = Promise.all(this.#order(options.endpoint).map(askOne));
    return Promise.race([
      found.promise,
      asked.then(() => (isFound ? found.promise : outcomes.conclude())),
    ]);
  }
}
