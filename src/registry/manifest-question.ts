import { randomBytes } from 'node:crypto';
import type { ManifestReference } from '../oci/path.ts';
import { outcomeOf } from './blob-fetch.ts';
import type { ByteBudget } from './byte-budget.ts';
import { credentialsFingerprint } from './credentials.ts';
import { upstreamHeaders, type PullRequest, type PullUpstream } from './pull-request.ts';
import { SingleFlight } from './single-flight.ts';
import { SourceError } from './sources/source.ts';
import { askForManifest, type UpstreamManifestAnswer } from './upstream/manifest-request.ts';

/** How long the upstream is not asked yet while others come who want the same, milliseconds. */
const MAX_BOARDING_MS = 50;

/** Asks upstreams for manifests, once for all requests that want the same at the same time. */
export class ManifestQuestion {
  readonly #options: { readonly stallMs: number; readonly maxBytes: number };
  readonly #budget: Pick<ByteBudget, 'open'>;
  /** By upstream: one that was configured anew must not be waited for behind its predecessor. */
  readonly #flights = new WeakMap<PullUpstream, SingleFlight<UpstreamManifestAnswer>>();
  readonly #salt = randomBytes(16);

  /** @param options.stallMs how long the answer may make no progress, milliseconds */
  constructor(
    options: { readonly stallMs: number; readonly maxBytes: number },
    dependencies: { budget: Pick<ByteBudget, 'open'> },
  ) {
    this.#options = options;
    this.#budget = dependencies.budget;
  }

  /**
   * What the request's upstream says.
   *
   * @param onTrouble called at the first failure of an attempt
   * @throws UpstreamFailure, SourceError, BusyError
   */
  async ask(
    request: PullRequest,
    reference: ManifestReference,
    onTrouble: () => void,
  ): Promise<UpstreamManifestAnswer> {
    const { accept, authorization, method, repository, signal, trace, upstream } = request;
    const headers = upstreamHeaders(request);
    const flights =
      this.#flights.get(upstream) ?? new SingleFlight({ maxBoardingMs: MAX_BOARDING_MS });
    this.#flights.set(upstream, flights);
    const credentials = credentialsFingerprint(authorization, this.#salt);
    const key = JSON.stringify([method, repository, reference, accept, credentials]);
    const note = trace.begin('upstream');
    // Whoever joins later learns of the trouble by its own timer.
    const work = (shared: AbortSignal): Promise<UpstreamManifestAnswer> =>
      askForManifest(
        upstream,
        { method, repository, reference, headers },
        { ...this.#options, budget: this.#budget, signal: shared, onTrouble },
      );
    try {
      const answer = await flights.run(key, signal, work);
      if ('bytes' in answer) request.lease.hold(answer.bytes);
      note(answer.kind === 'manifest' ? 'ok' : answer.kind);
      return answer;
    } catch (error) {
      note(signal.aborted ? 'overtaken' : outcomeOf(error));
      throw error;
    }
  }

  /** The same for a tag: what it names counts even where the manifest itself cannot be had. */
  async askForTag(
    request: PullRequest,
    tag: string,
    onTrouble: () => void,
  ): Promise<UpstreamManifestAnswer> {
    try {
      return await this.ask(request, { tag }, onTrouble);
    } catch (error) {
      if (!(error instanceof SourceError) || request.method === 'HEAD') throw error;
      return this.ask({ ...request, method: 'HEAD' }, { tag }, onTrouble);
    }
  }
}
