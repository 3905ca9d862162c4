import type { Digest } from '../oci/digest.ts';
import type { LocatedHolder } from '../rpc/agent-client.ts';
import type { Budgets } from './budgets.ts';
import { BusyError } from './byte-budget.ts';
import { hedge, type Hedged } from './hedge.ts';
import { Patience } from './patience.ts';
import { planFor } from './plan.ts';
import type { PullRequest } from './pull-request.ts';
import type { NextSource } from './relay.ts';
import type { HolderLookup } from './sources/holder-search.ts';
import type { Peers } from './sources/peers.ts';
import type { Quarantine } from './sources/quarantine.ts';
import { SourceError, type OpenOptions, type OpenedBody, type Wanted } from './sources/source.ts';
import {
  blobHeaders,
  blobPath,
  readBlobResponse,
  type UpstreamBlob,
} from './upstream/blob-request.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';

/**
 * Everything that one request for one blob knows of its sources: which nodes hold it, which have
 * failed already, and how to open the next one.
 */
export class BlobFetch {
  readonly #request: PullRequest;
  readonly #digest: Digest;
  readonly #budgets: Budgets;
  readonly #peers: Peers;
  /** With nodes that give no answer, until a first source has. */
  readonly patience: Patience;
  readonly #excluded = new Set<string>();
  readonly #opened = new Map<string, LocatedHolder>();
  readonly #wrongUpstreams: Quarantine;
  #search: HolderLookup | undefined;
  #upstreamGave = false;
  /** Of the upstream's endpoints, the one that gave bytes last: it is asked for the rest first. */
  #endpoint: number | undefined;
  #hasResumed = false;

  constructor(
    request: PullRequest,
    options: { readonly digest: Digest; readonly budgets: Budgets },
    dependencies: { peers: Peers; wrongUpstreams: Quarantine },
  ) {
    this.#request = request;
    this.#digest = options.digest;
    this.#budgets = options.budgets;
    this.#peers = dependencies.peers;
    this.patience = new Patience({ budgetMs: options.budgets.outageAnswerMs }, request);
    this.#wrongUpstreams = dependencies.wrongUpstreams;
  }

  /** The search for holders, started when first needed. */
  get search(): HolderLookup {
    const { signal } = this.#request;
    this.#search ??= this.#peers.search({ digest: this.#digest }, signal, this.patience);
    return this.#search;
  }

  /** How many nodes were asked, if any were. */
  get summary(): HolderLookup['summary'] {
    return this.#search?.summary;
  }

  /** The first source that gives the blob, or the word of the upstream that it will not. */
  async openFirst(wanted: Wanted, hashed: boolean): Promise<Hedged<UpstreamBlob, OpenedBody>> {
    const { policy, signal, trace, upstream } = this.#request;
    const isDown = upstream.outage !== undefined || upstream.isBlobOriginDown;
    const plan = planFor(policy, { isDown });
    // Its bytes of this blob were wrong: it is asked only if no node can give them.
    const isWrong = plan.peers && this.#wrongUpstreams.has(this.#digest, upstream.name);
    if (isWrong) trace.passOver('wrong_bytes');
    else if (plan.first === 'peers' && upstream.isBlobOriginDown) trace.passOver('circuit_open');
    const { hedgeMs, peerHeadersMs } = this.#budgets;
    const { patience } = this;
    if (upstream.outage !== undefined) patience.grant();
    return hedge<UpstreamBlob, OpenedBody>({
      signal,
      first: isWrong ? 'peers' : plan.first,
      hedgeMs: isWrong ? peerHeadersMs : hedgeMs,
      patience,
      upstream: (stop, trouble) => this.#openUpstream(wanted, stop, trouble),
      peers: async (stop) =>
        plan.peers ? this.openPeer(wanted, { hashed, signal: stop, isPatient: true }) : undefined,
      isFinal: ({ kind }) => kind !== 'missing',
      discardUpstream: discardBlob,
      discardPeers: (body) => body.cancel(),
    });
  }

  /**
   * For a relay whose source has failed: another node, else the upstream. An upstream that merely
   * broke off is asked once more before the nodes: what a node has not hashed is out before
   * anybody can tell whether it is right.
   */
  readonly next: NextSource = async (failed, error, needed) => {
    const { policy, signal, trace, upstream } = this.#request;
    // A client that leaves breaks its sources off: that says nothing about them.
    if (signal.aborted) return undefined;
    trace.begin(failed.source)(error.outcome);
    this.#excluded.add(failed.source);
    const holder = this.#opened.get(failed.source);
    if (holder !== undefined) this.#peers.recordFailure(holder.node);
    if (error.outcome === 'wrong_bytes') this.reportWrongBytes();
    else if (failed.source === 'upstream') {
      upstream.recordBodyFailure(new UpstreamFailure('cut', error.message), failed);
      this.#endpoint = failed.endpoint;
    }
    const wanted = { start: needed.start };
    // The upstream has consented to this request, whatever policy says about nodes on their own.
    const mayAskNodes = policy.mode === 'serve';
    const askNodes = async (stop: AbortSignal): Promise<OpenedBody | undefined> =>
      mayAskNodes ? this.openPeer(wanted, { hashed: needed.hashed, signal: stop }) : undefined;
    if (failed.source === 'upstream' && error.outcome === 'cut' && this.#mayResume()) {
      return this.#resume(wanted, askNodes);
    }
    const body = await askNodes(signal);
    if (body !== undefined) return body;
    // What the upstream alone gave wrong it would give wrong again.
    if (error.outcome === 'wrong_bytes' && this.#opened.size === 0) return undefined;
    try {
      const answer = await this.#openUpstream(wanted, signal, () => undefined);
      if (answer.kind === 'body') return answer.body;
    } catch {
      // The trace has it; the relay ends with the failure that brought it here.
    }
    return undefined;
  };

  /** The same for a client that wants a part, and may leave before a whole could be hashed. */
  readonly nextOfPart: NextSource = async (failed, error, { start }) =>
    this.next(failed, error, { start, hashed: false });

  #mayResume(): boolean {
    const { outage, isBlobOriginDown } = this.#request.upstream;
    if (this.#hasResumed || outage !== undefined || isBlobOriginDown) return false;
    this.#hasResumed = true;
    return true;
  }

  async #resume(
    wanted: Wanted,
    askNodes: (stop: AbortSignal) => Promise<OpenedBody | undefined>,
  ): Promise<OpenedBody | undefined> {
    const result = await hedge<UpstreamBlob, OpenedBody>({
      signal: this.#request.signal,
      first: 'upstream',
      hedgeMs: this.#budgets.hedgeMs,
      upstream: (stop, trouble) => this.#openUpstream(wanted, stop, trouble),
      peers: askNodes,
      isFinal: ({ kind }) => kind === 'body',
      discardUpstream: discardBlob,
      discardPeers: (body) => body.cancel(),
    });
    if (result.from === 'peers') return result.value;
    return result.from === 'upstream' && result.value.kind === 'body'
      ? result.value.body
      : undefined;
  }

  /** Bytes from these sources were wrong: each of the nodes shall look at its copy. */
  reportWrongBytes(): void {
    if (this.#upstreamGave) this.#wrongUpstreams.add(this.#digest, this.#request.upstream.name);
    for (const [label, holder] of this.#opened) {
      this.#excluded.add(label);
      this.#peers.reportCorrupt(this.#digest, holder);
    }
  }

  /** Stops what is still being looked for. */
  close(): void {
    this.#search?.cancel();
  }

  async #openUpstream(
    wanted: Wanted,
    signal: AbortSignal,
    trouble: () => void,
  ): Promise<UpstreamBlob> {
    const { trace, upstream } = this.#request;
    const note = trace.begin('upstream');
    try {
      const response = await upstream.ask(this.#upstreamRequest(wanted), {
        signal,
        onTrouble: trouble,
        endpoint: this.#endpoint,
      });
      const blob = await readBlobResponse(response, wanted);
      this.#upstreamGave ||= blob.kind === 'body';
      note(blob.kind === 'body' ? 'ok' : blob.kind);
      return blob;
    } catch (error) {
      note(signal.aborted ? 'overtaken' : outcomeOf(error));
      throw error;
    }
  }

  #upstreamRequest(wanted: Wanted): {
    method: 'GET';
    path: string;
    headers: Record<string, string>;
  } {
    return {
      method: 'GET',
      path: blobPath(this.#request.repository, this.#digest),
      headers: blobHeaders(this.#request, wanted),
    };
  }

  /**
   * The next node that gives the blob.
   *
   * @param options.hashed as in OpenOptions
   * @param options.isPatient nodes that give no answer may be waited for; the upstream has to be
   *   asked meanwhile
   * @returns undefined when no node is left
   */
  async openPeer(
    wanted: Wanted,
    options: {
      readonly hashed: boolean;
      readonly signal: AbortSignal;
      readonly isPatient?: boolean;
    },
  ): Promise<OpenedBody | undefined> {
    const doubted: LocatedHolder[] = [];
    while (!options.signal.aborted) {
      const holder = await this.search.next(
        (candidate) =>
          !this.#excluded.has(`node/${candidate.node}`) &&
          this.#peers.accepts(this.#digest, candidate),
        { bestFirst: true, isPatient: options.isPatient === true && doubted.length === 0 },
      );
      // A node that is just hashing its copy again still is better than none.
      const isLastResort = holder === undefined;
      const chosen = holder ?? doubted.shift();
      if (chosen === undefined) return undefined;
      const body = await this.#openHolder(chosen, wanted, { ...options, isLastResort });
      if (body === 'unverified') doubted.push(chosen);
      else if (body !== undefined) return body;
    }
    return undefined;
  }

  async #openHolder(
    holder: LocatedHolder,
    wanted: Wanted,
    options: OpenOptions,
  ): Promise<OpenedBody | 'unverified' | undefined> {
    const source = this.#peers.source(holder);
    this.#excluded.add(source.label);
    const note = this.#request.trace.begin(source.label);
    try {
      const body = await source.open(this.#digest, wanted, options);
      this.#opened.set(source.label, holder);
      note('ok');
      return body;
    } catch (error) {
      const outcome = options.signal.aborted ? 'overtaken' : outcomeOf(error);
      note(outcome);
      return outcome === 'unverified' ? outcome : undefined;
    }
  }
}

function discardBlob(blob: UpstreamBlob): void {
  if (blob.kind === 'body') blob.body.cancel();
}

/** An error in a word, for the trace. */
export function outcomeOf(error: unknown): string {
  if (error instanceof SourceError) return error.outcome;
  if (error instanceof UpstreamFailure) return error.kind;
  if (error instanceof BusyError) return 'busy';
  return 'error';
}
