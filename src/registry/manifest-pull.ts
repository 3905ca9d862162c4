import { randomBytes } from 'node:crypto';
import type { Digest } from '../oci/digest.ts';
import type { ManifestReference } from '../oci/path.ts';
import { tagName } from '../oci/reference.ts';
import type { LocateSummary } from '../rpc/agent-client.ts';
import { OBSERVED_AT_HEADER, SOURCE_HEADER } from '../http/salvor-headers.ts';
import type { Answer, AnswerDecision } from './answer.ts';
import type { Budgets } from './budgets.ts';
import { BusyError, type ByteBudget } from './byte-budget.ts';
import { credentialsFingerprint } from './credentials.ts';
import { hedge } from './hedge.ts';
import type { KeepNotices } from './keep-notices.ts';
import type { ManifestCache } from './manifest-cache.ts';
import { ManifestQuestion } from './manifest-question.ts';
import type { OfflineTags } from './offline-tags.ts';
import { Patience } from './patience.ts';
import type { FoundManifest, PeerManifests } from './peer-manifests.ts';
import { planFor } from './plan.ts';
import { allowsPeers, allowsStale } from '../policy/policy.ts';
import type { PullRequest } from './pull-request.ts';
import type { HolderLookup } from './sources/holder-search.ts';
import type { Peers } from './sources/peers.ts';
import type { TagRecorder } from './tag-recorder.ts';
import {
  busyAnswer,
  missingAnswer,
  refusalAnswer,
  unavailableAnswer,
  type Missing,
} from './unavailable.ts';
import type { UpstreamManifest, UpstreamManifestAnswer } from './upstream/manifest-request.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';

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
  readonly #questions: ManifestQuestion;
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
    const { budgets, maxBytes } = options;
    this.#questions = new ManifestQuestion({ stallMs: budgets.stallMs, maxBytes }, dependencies);
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
    const isDown = upstream.outage !== undefined;
    const plan = planFor(request.policy, { isDown });
    const patience = this.#patience(request);
    if (isDown) patience.grant();
    const result = await hedge<UpstreamManifestAnswer, FoundManifest>({
      signal,
      first: plan.first,
      hedgeMs: this.#options.budgets.hedgeMs,
      patience,
      upstream: (stop, trouble) =>
        this.#questions.ask({ ...request, signal: stop }, { digest }, trouble),
      peers: async (stop) => {
        if (!plan.peers) return undefined;
        return this.#peerManifests.fetch(digest, {
          signal: stop,
          trace,
          patience,
          lease: request.lease,
          onSummary: (value) => (summary = value),
        });
      },
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
    const patience = this.#patience(request);
    let search: HolderLookup | undefined;
    const startSearch = (): HolderLookup =>
      (search ??= this.#peers.search({ name }, signal, patience));
    // Looked up ahead of the verdict, so that a silent upstream costs its proof and no more.
    const { hedgeMs } = this.#options.budgets;
    const timer = allowsPeers(policy) ? setTimeout(startSearch, hedgeMs) : undefined;
    let offline: OfflineOutcome | undefined;
    const lookOffline = async (stop = signal): Promise<OfflineOutcome> =>
      (offline = await this.#offline(
        { ...request, signal: stop },
        { name, patience, search: startSearch },
      ));
    const ask = async (
      stop: AbortSignal,
      trouble: () => void,
    ): Promise<{ readonly said: UpstreamManifestAnswer }> => {
      const asked = { ...request, signal: stop };
      return { said: await this.#questions.askForTag(asked, tag, trouble) };
    };
    try {
      const { outage } = upstream;
      const isOffline = outage !== undefined && allowsStale(policy, outage.cause.kind);
      const first = isOffline
        ? await this.#nodesFirst(signal, patience, { ask, lookOffline })
        : await patience.follow((trouble) => ask(signal, trouble), startSearch);
      if ('answer' in first) return first.answer;
      const { said } = first;
      if (said.kind === 'manifest') {
        await this.#recorder.observe(name, said);
        // The upstream says what the tag names, but cannot give it: anybody may.
        const isBroken = request.method === 'GET' && said.bytes === undefined;
        if (isBroken) return await this.#byDigest(request, said.digest, missing);
      } else if (said.kind === 'missing' && allowsStale(policy, 'gone')) {
        const found = await lookOffline();
        if ('answer' in found) return found.answer;
      }
      return await this.#upstreamAnswer(request, said, missing);
    } catch (error) {
      if (error instanceof BusyError) throw error;
      const failure = UpstreamFailure.from(error, upstream.name);
      const isProven = failure.isProven || failure.kind === 'rate_limited';
      if (!isProven || !allowsStale(policy, failure.kind)) {
        return unavailableAnswer(missing, failure, undefined);
      }
      const found = offline ?? (await lookOffline());
      if ('answer' in found) return found.answer;
      return unavailableAnswer(
        { ...missing, what: `${missing.what} (${found.reason})` },
        failure,
        startSearch().summary,
      );
    } finally {
      clearTimeout(timer);
      search?.cancel();
    }
  }

  /** In an outage nodes are asked; the upstream only if those that can be asked do not know. */
  async #nodesFirst(
    signal: AbortSignal,
    patience: Patience,
    sides: {
      readonly ask: (
        stop: AbortSignal,
        trouble: () => void,
      ) => Promise<{ readonly said: UpstreamManifestAnswer }>;
      readonly lookOffline: (stop: AbortSignal) => Promise<OfflineOutcome>;
    },
  ): Promise<{ readonly said: UpstreamManifestAnswer } | { readonly answer: Answer }> {
    patience.grant();
    const result = await hedge({
      signal,
      first: 'peers',
      hedgeMs: this.#options.budgets.outageAnswerMs,
      patience,
      upstream: sides.ask,
      peers: async (stop) => {
        const found = await sides.lookOffline(stop);
        return 'answer' in found ? found : undefined;
      },
      isFinal: () => true,
      discardUpstream: () => undefined,
      discardPeers: () => undefined,
    });
    if (result.from !== 'nobody') return result.value;
    if ('value' in result.upstream) return result.upstream.value;
    throw result.upstream.error;
  }

  async #offline(
    request: PullRequest,
    asked: {
      readonly name: string;
      readonly patience: Patience;
      readonly search: () => HolderLookup;
    },
  ): Promise<OfflineOutcome> {
    const { lease, platform, policy, signal, trace, upstream } = request;
    const found = await this.#offlineTags.resolve(asked.name, {
      signal,
      trace,
      lease,
      patience: asked.patience,
      search: asked.search,
      outage: upstream.outage,
      hasAnswered: upstream.hasAnswered,
      maxAgeMs: policy.staleMaxAgeMs,
      ...(platform === undefined ? {} : { platform }),
    });
    if ('reason' in found) return found;
    const answer = this.#found(request, found, found.observedAtMs);
    return { answer: { ...answer, decision: 'offline_tag' } };
  }

  #patience(request: PullRequest): Patience {
    return new Patience({ budgetMs: this.#options.budgets.outageAnswerMs }, request);
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
