import type { Endpoint } from './endpoint.ts';
import { discard } from './upstream-answer.ts';
import type { UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/**
 * What the endpoints of one upstream said to one request, and what follows from all of it where
 * none of them gave what was asked for.
 */
export class EndpointOutcomes {
  readonly #failures: UpstreamFailure[] = [];
  /** Say nothing about the content: the configuration is wrong, or the endpoint for others. */
  readonly #unfit: UpstreamFailure[] = [];
  #missing: UpstreamResponse | undefined;

  /**
   * An endpoint has answered.
   *
   * @returns the answer, if it settles the matter
   */
  answered(
    response: UpstreamResponse,
    endpoint: Pick<Endpoint, 'host' | 'judgesClients'>,
  ): UpstreamResponse | undefined {
    const { status } = response;
    if (status === 404 || status === 410) {
      this.close();
      this.#missing = response;
      return undefined;
    }
    if ((status === 401 || status === 403) && !endpoint.judgesClients) {
      // A client that met this challenge would hand its credentials to somebody else's registry.
      discard(response);
      const message = `${endpoint.host} does not accept what is configured for it (${status})`;
      this.#unfit.push(new UpstreamFailure('bad_answer', message, { status }));
      return undefined;
    }
    this.close();
    return response;
  }

  /** An endpoint has failed, or is known to. */
  failed(failure: UpstreamFailure): void {
    if (failure.kind === 'forbidden_address') this.#unfit.push(failure);
    else this.#failures.push(failure);
  }

  /**
   * Nobody is left to ask. That some do not have it counts for nothing beside one that could not
   * be asked; that it is proven not to answer counts only if that is so of all that failed.
   *
   * @returns the answer that it is missing
   * @throws UpstreamFailure
   */
  conclude(): UpstreamResponse {
    const failures =
      this.#missing === undefined ? this.#failures : this.#failures.filter(mayHaveIt);
    if (failures.length === 0 && this.#missing !== undefined) return this.#missing;
    this.close();
    throw (
      failures.findLast((failure) => !isConclusive(failure)) ??
      failures.at(-1) ??
      this.#unfit.at(-1) ??
      new UpstreamFailure('bad_answer', 'No endpoint was asked')
    );
  }

  /** Lets go of an answer that nobody wants any more. */
  close(): void {
    if (this.#missing !== undefined) discard(this.#missing);
    this.#missing = undefined;
  }
}

/** Whether another time the same endpoint might give what was asked for. */
function mayHaveIt(failure: UpstreamFailure): boolean {
  const { isOutageSign, kind } = failure;
  return isConclusive(failure) || isOutageSign || kind === 'circuit_open' || kind === 'local';
}

/** Whether nothing is to be had from the endpoint now, for certain. */
function isConclusive({ isProven, kind }: UpstreamFailure): boolean {
  return isProven || kind === 'rate_limited';
}
