import type { Digest } from '../oci/digest.ts';
import { isManifest } from '../oci/manifest.ts';
import { MEDIA_TYPE } from '../oci/media-type.ts';
import { SOURCE_HEADER } from '../http/salvor-headers.ts';
import type { Answer } from './answer.ts';
import { outcomeOf, type BlobFetch } from './blob-fetch.ts';
import type { Budgets } from './budgets.ts';
import type { ByteBudget } from './byte-budget.ts';
import { hedge } from './hedge.ts';
import { planFor } from './plan.ts';
import { upstreamHeaders, type PullRequest } from './pull-request.ts';
import { readWhole } from './read-whole.ts';
import { HELD_BLOB_BYTES } from './small-blob.ts';
import type { Peers } from './sources/peers.ts';
import { SourceError } from './sources/source.ts';
import { missingAnswer, refusalAnswer, unavailableAnswer, type Missing } from './unavailable.ts';
import { blobPath } from './upstream/blob-request.ts';
import {
  contentLengthOf,
  discard,
  encodingOf,
  refusalOf,
  type Refusal,
} from './upstream/upstream-answer.ts';
import type { UpstreamResponse } from './upstream/upstream-client.ts';

type HeadOutcome =
  | { readonly kind: 'found'; readonly sizeBytes: number; readonly source: string }
  | { readonly kind: 'missing' | 'refused'; readonly refusal: Refusal };

/** Answers HEAD of a blob, of which nothing is sent: from the upstream's word, or a node's. */
export class BlobHead {
  readonly #budgets: Budgets;
  readonly #peers: Pick<Peers, 'accepts'>;
  readonly #budget: Pick<ByteBudget, 'open'>;

  constructor(
    options: { readonly budgets: Budgets },
    dependencies: { peers: Pick<Peers, 'accepts'>; budget: Pick<ByteBudget, 'open'> },
  ) {
    this.#budgets = options.budgets;
    this.#peers = dependencies.peers;
    this.#budget = dependencies.budget;
  }

  /**
   * @param context.fetch of this request; closed in the end
   * @throws BusyError when there is no memory for a look at what a node has
   */
  async answer(
    request: PullRequest,
    digest: Digest,
    context: { readonly fetch: BlobFetch; readonly missing: Missing },
  ): Promise<Answer> {
    const { fetch, missing } = context;
    const isDown = request.upstream.outage !== undefined;
    const plan = planFor(request.policy, { isDown });
    const { patience } = fetch;
    if (isDown) patience.grant();
    const result = await hedge<HeadOutcome, HeadOutcome>({
      signal: request.signal,
      first: plan.first,
      hedgeMs: this.#budgets.hedgeMs,
      patience,
      upstream: (signal, trouble) => this.#askUpstream(request, digest, signal, trouble),
      peers: async (signal) => (plan.peers ? this.#askPeers(digest, fetch, signal) : undefined),
      isFinal: ({ kind }) => kind !== 'missing',
      discardUpstream: () => undefined,
      discardPeers: () => undefined,
    });
    try {
      if (result.from === 'nobody') {
        if ('error' in result.upstream) {
          return unavailableAnswer(missing, result.upstream.error, fetch.summary);
        }
        const { value } = result.upstream;
        return missingAnswer(missing, value.kind === 'found' ? undefined : value.refusal);
      }
      const { value } = result;
      if (value.kind !== 'found') return refusalAnswer(value.refusal);
      const headers = {
        'content-type': MEDIA_TYPE.octetStream,
        'content-length': value.sizeBytes,
        'accept-ranges': 'bytes',
        'docker-content-digest': digest,
        [SOURCE_HEADER]: value.source,
      };
      const decision = value.source === 'upstream' ? 'upstream' : 'peer';
      return { status: 200, headers, source: () => value.source, decision };
    } finally {
      fetch.close();
    }
  }

  async #askUpstream(
    request: PullRequest,
    digest: Digest,
    signal: AbortSignal,
    onTrouble: () => void,
  ): Promise<HeadOutcome> {
    const note = request.trace.begin('upstream');
    try {
      const response = await request.upstream.ask(
        {
          method: 'HEAD',
          path: blobPath(request.repository, digest),
          headers: upstreamHeaders(request),
        },
        { signal, onTrouble },
      );
      if (response.status === 200 || response.status === 206) {
        discard(response);
        const sizeBytes = sizeOf(response);
        note('ok');
        return { kind: 'found', sizeBytes, source: 'upstream' };
      }
      const kind = response.status === 404 || response.status === 410 ? 'missing' : 'refused';
      note(kind);
      return { kind, refusal: await refusalOf(response) };
    } catch (error) {
      note(signal.aborted ? 'overtaken' : outcomeOf(error));
      throw error;
    }
  }

  async #askPeers(
    digest: Digest,
    fetch: BlobFetch,
    signal: AbortSignal,
  ): Promise<HeadOutcome | undefined> {
    const holder = await fetch.search.next((one) => this.#peers.accepts(digest, one));
    if (holder === undefined) return undefined;
    const { sizeBytes } = holder;
    if (sizeBytes > HELD_BLOB_BYTES) {
      return { kind: 'found', sizeBytes, source: `node/${holder.node}` };
    }
    const body = await fetch.openPeer({ start: 0 }, { hashed: true, signal, isPatient: true });
    if (body === undefined) return undefined;
    const { stallMs } = this.#budgets;
    const options = { maxBytes: HELD_BLOB_BYTES, stallMs, budget: this.#budget };
    if (isManifest(await readWhole(body, options))) return undefined;
    return { kind: 'found', sizeBytes: body.sizeBytes, source: body.source };
  }
}

/** @throws SourceError when the answer does not say how long the whole blob is, as it is */
function sizeOf(response: UpstreamResponse): number {
  const sizeBytes = contentLengthOf(response);
  const isWhole = response.status === 200 && encodingOf(response) === undefined;
  if (isWhole && sizeBytes !== undefined) return sizeBytes;
  throw new SourceError('bad_answer', 'The upstream does not say how long the blob is');
}
