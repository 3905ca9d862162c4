import { randomBytes } from 'node:crypto';
import type { Digest } from '../oci/digest.ts';
import type { ManifestReference } from '../oci/path.ts';
import { tagName } from '../oci/reference.ts';
import type { LocateSummary } from '../rpc/agent-client.ts';
import { OBSERVED_AT_HEADER, SOURCE_HEADER, type Answer, type AnswerDecision } from './answer.ts';
import { outcomeOf } from './blob-fetch.ts';
import type { Budgets } from './budgets.ts';
import { BusyError, type ByteBudget } from './byte-budget.ts';
import { credentialsFingerprint } from './credentials.ts';
import { hedge } from './hedge.ts';
import type { KeepNotices } from './keep-notices.ts';
import type { ManifestCache } from './manifest-cache.ts';
import type { OfflineTag, OfflineTags } from './offline-tags.ts';
import type { FoundManifest, PeerManifests } from './peer-manifests.ts';
import { planFor } from './plan.ts';
import { allowsPeers, allowsStale } from '../policy/policy.ts';
import { upstreamHeaders, type PullRequest, type PullUpstream } from './pull-request.ts';
import { RecentTags, type RecentTag } from './recent-tags.ts';
import { SingleFlight } from './single-flight.ts';
import type { HolderLookup } from './sources/shared-searches.ts';
import type { Peers } from './sources/peers.ts';
import { SourceError } from './sources/source.ts';
import type { TagRecorder } from './tag-recorder.ts';
import {
  busyAnswer,
  missingAnswer,
  refusalAnswer,
  unavailableAnswer,
  type Missing,
} from './unavailable.ts';
import {
  askForManifest,
  type UpstreamManifest,
  type UpstreamManifestAnswer,
} from './upstream/manifest-request.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';

/** How long the upstream is not asked yet while others come who want the same, milliseconds. */
const MAX_BOARDING_MS = 50;

export interface ManifestPullOptions {
  readonly budgets: Budgets;
  readonly maxBytes: number;
}

type OfflineOutcome = { readonly answer: Answer } | { readonly reason: string };

/** Answers requests for manifests, by digest and by tag. */
export class ManifestPull {
  readonly #options: ManifestPullOptions;
  readonly #peers: Peers;
  readonly #cache: ManifestCache;
  readonly #peerManifests: PeerManifests;
  readonly #offlineTags: OfflineTags;
  readonly #recorder: TagRecorder;
  readonly #notices: Pick<KeepNotices, 'manifestPassed'> | undefined;
  readonly #budget: Pick<ByteBudget, 'open'>;
  /** By upstream: one that was configured anew must not be waited for behind its predecessor. */
  readonly #flights = new WeakMap<PullUpstream, SingleFlight<UpstreamManifestAnswer>>();
  readonly #recentTags = new RecentTags();
  readonly #salt = randomBytes(16);

  constructor(
    options: ManifestPullOptions,
    dependencies: {
      peers: Peers;
      cache: ManifestCache;
      peerManifests: PeerManifests;
      offlineTags: OfflineTags;
      recorder: TagRecorder;
      /** Told of every manifest that goes to containerd. */
      notices?: Pick<KeepNotices, 'manifestPassed'> | undefined;
      budget: Pick<ByteBudget, 'open'>;
    },
  ) {
    this.#options = options;
    this.#peers = dependencies.peers;
    this.#cache = dependencies.cache;
    this.#peerManifests = dependencies.peerManifests;
    this.#offlineTags = dependencies.offlineTags;
    this.#recorder = dependencies.recorder;
    this.#notices = dependencies.notices;
    this.#budget = dependencies.budget;
  }

  /** The answer to GET or HEAD of a manifest. Never throws for a source's failure. */
  async answer(request: PullRequest, reference: ManifestReference): Promise<Answer> {
    const missing: Missing = {
      what: `${request.repository}${reference.digest ? '@' : ':'}${reference.digest ?? reference.tag}`,
      unknownCode: 'MANIFEST_UNKNOWN',
      upstream: request.upstream.name,
    };
    try {
      return reference.digest === undefined
        ? await this.#byTag(request, reference.tag, missing)
        : await this.#byDigest(request, reference.digest, missing);
    } catch (error) {
      if (error instanceof BusyError) return busyAnswer('bytes');
      throw error;
    }
  }

  async #byDigest(request: PullRequest, digest: Digest, missing: Missing): Promise<Answer> {
    const { signal, trace, upstream } = request;
    const known = this.#cache.getConsented(digest, this.#consent(request));
    if (known !== undefined) {
      request.lease.hold(known.bytes);
      // It may have had to make room on disk, and the image that it belongs to is in use again.
      await this.#recorder.keepManifest(known);
      return this.#found(request, { manifest: known, source: 'memory' });
    }
    let summary: LocateSummary | undefined;
    const plan = planFor(request.policy, { isDown: upstream.outage !== undefined });
    const result = await hedge<UpstreamManifestAnswer, FoundManifest>({
      signal,
      first: plan.first,
      hedgeMs: this.#options.budgets.hedgeMs,
      upstream: (stop, onTrouble) => this.#ask(request, { digest }, stop, onTrouble),
      peers: async (stop) =>
        plan.peers
          ? this.#peerManifests.fetch(digest, {
              signal: stop,
              trace,
              lease: request.lease,
              onSummary: (value) => (summary = value),
            })
          : undefined,
      isFinal: ({ kind }) => kind !== 'missing',
      discardUpstream: () => undefined,
      discardPeers: () => undefined,
    });
    if (result.from === 'peers') return this.#found(request, result.value);
    if (result.from === 'nobody') {
      if ('error' in result.upstream) {
        return unavailableAnswer(missing, result.upstream.error, summary);
      }
      const { value } = result.upstream;
      return missingAnswer(missing, value.kind === 'manifest' ? undefined : value.refusal);
    }
    return this.#upstreamAnswer(request, result.value, missing);
  }

  /** Tags are the upstream's alone, as long as it is not proven that it cannot be asked. */
  async #byTag(request: PullRequest, tag: string, missing: Missing): Promise<Answer> {
    const { policy, upstream, signal } = request;
    const name = tagName(upstream.name, request.repository, tag);
    let search: HolderLookup | undefined;
    const startSearch = (): HolderLookup => (search ??= this.#peers.search({ name }, signal));
    // Looked up ahead of the verdict, so that a silent upstream costs its proof and no more.
    const { hedgeMs } = this.#options.budgets;
    const timer = allowsPeers(policy) ? setTimeout(startSearch, hedgeMs) : undefined;
    let offline: OfflineOutcome | undefined;
    try {
      const { outage } = upstream;
      if (outage !== undefined && allowsStale(policy, outage.cause.kind)) {
        offline = await this.#offline(request, name, startSearch);
        if ('answer' in offline) return offline.answer;
      }
      const answer = await this.#askForTag(request, tag, startSearch);
      if (answer.kind === 'manifest') {
        await this.#recorder.observe(name, answer);
        // The upstream says what the tag names, but cannot give it: anybody may.
        const isBroken = request.method === 'GET' && answer.bytes === undefined;
        if (isBroken) return await this.#byDigest(request, answer.digest, missing);
      } else if (answer.kind === 'missing' && allowsStale(policy, 'gone')) {
        offline = await this.#offline(request, name, startSearch);
        if ('answer' in offline) return offline.answer;
      }
      return await this.#upstreamAnswer(request, answer, missing);
    } catch (error) {
      if (error instanceof BusyError) throw error;
      const failure = UpstreamFailure.from(error, upstream.name);
      const isProven = failure.isProven || failure.kind === 'rate_limited';
      if (!isProven || !allowsStale(policy, failure.kind)) {
        return unavailableAnswer(missing, failure, undefined);
      }
      offline ??= await this.#offline(request, name, startSearch);
      if ('answer' in offline) return offline.answer;
      return unavailableAnswer(
        { ...missing, what: `${missing.what} (${offline.reason})` },
        failure,
        startSearch().summary,
      );
    } finally {
      clearTimeout(timer);
      search?.cancel();
    }
  }

  async #askForTag(
    request: PullRequest,
    tag: string,
    onTrouble: () => void,
  ): Promise<UpstreamManifestAnswer> {
    const { signal } = request;
    try {
      return await this.#ask(request, { tag }, signal, onTrouble);
    } catch (error) {
      if (!(error instanceof SourceError) || request.method === 'HEAD') throw error;
      return this.#ask({ ...request, method: 'HEAD' }, { tag }, signal, onTrouble);
    }
  }

  async #offline(
    request: PullRequest,
    name: string,
    search: () => HolderLookup,
  ): Promise<OfflineOutcome> {
    const { lease, platform, policy, signal, trace, upstream } = request;
    const { outage } = upstream;
    // A bound on the age of what may be used is kept to the millisecond.
    const isRecentEnough = outage !== undefined && policy.staleMaxAgeMs === 0;
    const recent = isRecentEnough ? this.#recentTags.get(name, outage) : undefined;
    let tag = recent === undefined ? undefined : await this.#again(request, recent);
    if (tag === undefined) {
      const found = await this.#offlineTags.resolve(search(), {
        signal,
        trace,
        lease,
        hasAnswered: upstream.hasAnswered,
        maxAgeMs: policy.staleMaxAgeMs,
        ...(platform === undefined ? {} : { platform }),
      });
      if ('reason' in found) return found;
      if (outage !== undefined) this.#recentTags.put(name, outage, found);
      tag = found;
    }
    const answer = this.#found(request, tag, tag.observedAtMs);
    return { answer: { ...answer, decision: 'offline_tag' } };
  }

  /** What a tag was found to name a moment ago, if it can still be had. */
  async #again(request: PullRequest, recent: RecentTag): Promise<OfflineTag | undefined> {
    const { lease, signal, trace } = request;
    const { digest, mediaType } = recent.manifest;
    const found = await this.#peerManifests.fetch(digest, { lease, signal, trace, mediaType });
    return found && { ...found, observedAtMs: recent.observedAtMs };
  }

  async #ask(
    request: PullRequest,
    reference: ManifestReference,
    signal: AbortSignal,
    onTrouble: () => void,
  ): Promise<UpstreamManifestAnswer> {
    const { method, upstream, repository, accept, trace } = request;
    const headers = upstreamHeaders(request);
    const { budgets, maxBytes } = this.#options;
    const flights =
      this.#flights.get(upstream) ?? new SingleFlight({ maxBoardingMs: MAX_BOARDING_MS });
    this.#flights.set(upstream, flights);
    const key = JSON.stringify([
      method,
      repository,
      reference,
      accept,
      this.#consent(request).credentials,
    ]);
    const note = trace.begin('upstream');
    // Whoever joins later learns of the trouble by its own timer.
    const work = (shared: AbortSignal): Promise<UpstreamManifestAnswer> =>
      askForManifest(
        upstream,
        { method, repository, reference, headers },
        { maxBytes, stallMs: budgets.stallMs, budget: this.#budget, signal: shared, onTrouble },
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

  async #upstreamAnswer(
    request: PullRequest,
    answer: UpstreamManifestAnswer,
    missing: Missing,
  ): Promise<Answer> {
    if (answer.kind !== 'manifest') {
      return answer.kind === 'missing'
        ? missingAnswer(missing, answer.refusal)
        : refusalAnswer(answer.refusal);
    }
    const { bytes, digest, mediaType } = answer;
    if (bytes !== undefined) {
      this.#cache.put({ digest, mediaType, bytes }, this.#consent(request));
      await this.#recorder.keepManifest({ digest, mediaType, bytes });
    }
    return this.#described(request, answer, { source: 'upstream', decision: 'upstream' });
  }

  #found(request: PullRequest, found: FoundManifest, observedAtMs?: number): Answer {
    const { digest, mediaType, bytes } = found.manifest;
    const decision = found.source === 'memory' ? 'memory' : 'peer';
    return this.#described(
      request,
      { digest, mediaType, bytes, sizeBytes: bytes.length },
      { source: found.source, decision, observedAtMs },
    );
  }

  #described(
    request: PullRequest,
    manifest: Omit<UpstreamManifest, 'kind' | 'confirmedAtMs'>,
    origin: { source: string; decision: AnswerDecision; observedAtMs?: number | undefined },
  ): Answer {
    const { digest, mediaType, sizeBytes, bytes } = manifest;
    const { source, decision, observedAtMs } = origin;
    if (bytes !== undefined && request.method === 'GET') {
      this.#notices?.manifestPassed({ digest, mediaType, bytes });
    }
    return {
      status: 200,
      headers: {
        'content-type': mediaType,
        'content-length': sizeBytes,
        'docker-content-digest': digest,
        [SOURCE_HEADER]: source,
        ...(observedAtMs === undefined
          ? {}
          : { [OBSERVED_AT_HEADER]: new Date(observedAtMs).toISOString() }),
      },
      ...(bytes === undefined || request.method === 'HEAD' ? {} : { body: bytes }),
      source: () => source,
      decision,
    };
  }

  #consent(request: PullRequest): { repository: string; credentials: string } {
    return {
      repository: `${request.upstream.name}/${request.repository}`,
      credentials: credentialsFingerprint(request.authorization, this.#salt),
    };
  }
}
