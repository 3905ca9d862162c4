import { setTimeout as sleep } from 'node:timers/promises';
import {
  formatContentRange,
  formatUnsatisfiedContentRange,
  parseByteRange,
} from '../oci/byte-range.ts';
import type { Digest } from '../oci/digest.ts';
import { isManifest } from '../oci/manifest.ts';
import { MEDIA_TYPE } from '../oci/media-type.ts';
import type { Logger } from '../telemetry/logger.ts';
import { SOURCE_HEADER } from '../http/salvor-headers.ts';
import { errorAnswer, type Answer } from './answer.ts';
import { BlobFetch } from './blob-fetch.ts';
import { BlobHead } from './blob-head.ts';
import type { BlobTap } from './relay.ts';
import { Relay, WrongBytesError } from './relay.ts';
import { HELD_BLOB_BYTES, SmallBlob } from './small-blob.ts';
import type { Budgets } from './budgets.ts';
import { BusyError, STREAM_SHARE_BYTES, type ByteBudget } from './byte-budget.ts';
import type { KeepNotices } from './keep-notices.ts';
import type { ManifestCache } from './manifest-cache.ts';
import type { PullRequest } from './pull-request.ts';
import { stretchOf, type Peers } from './sources/peers.ts';
import { Quarantine } from './sources/quarantine.ts';
import type { OpenedBody, Stretch, Wanted } from './sources/source.ts';
import {
  busyAnswer,
  missingAnswer,
  refusalAnswer,
  unavailableAnswer,
  type Missing,
} from './unavailable.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';
import { within } from '../telemetry/within.ts';

/** How often a body may change its source without a byte of progress. */
const MAX_IDLE_SWITCHES = 4;
/** When a poisoned ingest is looked for after the client was cut off, milliseconds. */
const ABORT_INGEST_DELAYS_MS = [50, 200];
/** For how long nodes come before an upstream that gave wrong bytes, milliseconds. */
const WRONG_UPSTREAM_MS = 600_000;

/** Keeps a copy of blobs that pass, where somebody wants that. */
export interface BlobKeeper {
  /** @returns undefined when this one is not to be kept */
  tap(digest: Digest, sizeBytes: number): Promise<BlobTap | undefined>;
}

/** Answers requests for blobs. */
export class BlobPull {
  readonly #budgets: Budgets;
  readonly #peers: Peers;
  readonly #manifests: ManifestCache;
  readonly #keeper: BlobKeeper | undefined;
  readonly #notices: Pick<KeepNotices, 'blobAsked'> | undefined;
  readonly #head: BlobHead;
  readonly #log: Logger;
  /** Which upstreams gave wrong bytes of what, not long ago. */
  readonly #wrongUpstreams = new Quarantine({ ttlMs: WRONG_UPSTREAM_MS, maxEntries: 1000 });

  constructor(
    options: { readonly budgets: Budgets },
    dependencies: {
      peers: Peers;
      manifests: ManifestCache;
      keeper?: BlobKeeper | undefined;
      /** Told of every blob that goes to containerd. */
      notices?: Pick<KeepNotices, 'blobAsked'> | undefined;
      budget: Pick<ByteBudget, 'open'>;
      log: Logger;
    },
  ) {
    this.#budgets = options.budgets;
    this.#peers = dependencies.peers;
    this.#manifests = dependencies.manifests;
    this.#keeper = dependencies.keeper;
    this.#notices = dependencies.notices;
    this.#head = new BlobHead(options, dependencies);
    this.#log = dependencies.log;
  }

  /** The answer to GET or HEAD of a blob. Never throws for a source's failure. */
  async answer(request: PullRequest, digest: Digest): Promise<Answer> {
    const missing: Missing = {
      what: digest,
      unknownCode: 'BLOB_UNKNOWN',
      upstream: request.upstream.name,
    };
    // containerd would store a manifest that it gets here as a blob of no type.
    if (this.#manifests.has(digest)) return missingAnswer(missing, undefined);
    const fetch = new BlobFetch(
      request,
      { digest, budgets: this.#budgets },
      { peers: this.#peers, wrongUpstreams: this.#wrongUpstreams },
    );
    try {
      if (request.method === 'HEAD') {
        return await this.#head.answer(request, digest, { fetch, missing });
      }
      // While the sources are asked. The pull cannot end, and its layers be dropped, before this
      // answer.
      const kept = this.#notices?.blobAsked(digest);
      const answer = await this.#get(request, digest, { fetch, missing });
      await kept;
      return answer;
    } catch (error) {
      fetch.close();
      if (error instanceof BusyError) return busyAnswer('bytes');
      throw error;
    }
  }

  async #get(
    request: PullRequest,
    digest: Digest,
    context: { readonly fetch: BlobFetch; readonly missing: Missing },
  ): Promise<Answer> {
    const { fetch, missing } = context;
    const range = parseByteRange(request.range);
    if (range.kind === 'unsatisfiable') return unsatisfiable();
    const wanted: Wanted = range.kind === 'none' ? { start: 0 } : range.spec;
    const opened = await fetch.openFirst(wanted, range.kind === 'none');
    if (opened.from === 'nobody') {
      fetch.close();
      if ('error' in opened.upstream) {
        return unavailableAnswer(missing, opened.upstream.error, fetch.summary);
      }
      const { value } = opened.upstream;
      return missingAnswer(missing, value.kind === 'missing' ? value.refusal : undefined);
    }
    if (opened.from === 'peers') return this.#serve(request, digest, opened.value, context, wanted);
    const { value } = opened;
    if (value.kind === 'body') return this.#serve(request, digest, value.body, context, wanted);
    fetch.close();
    if (value.kind === 'unsatisfiable') return unsatisfiable();
    return refusalAnswer(value.refusal);
  }

  async #serve(
    request: PullRequest,
    digest: Digest,
    first: OpenedBody,
    context: { readonly fetch: BlobFetch; readonly missing: Missing },
    wanted: Wanted,
  ): Promise<Answer> {
    const { sizeBytes } = first;
    const window = stretchOf(wanted, sizeBytes);
    const partial = request.range !== undefined && parseByteRange(request.range).kind === 'range';
    if (partial && window.start >= sizeBytes) {
      first.cancel();
      context.fetch.close();
      return unsatisfiable(sizeBytes);
    }
    const whole = window.start === 0 && window.end === sizeBytes - 1;
    if ((whole || !first.trusted) && sizeBytes <= HELD_BLOB_BYTES) {
      return this.#serveSmall(request, first, { ...context, digest, wanted, partial });
    }
    if (!request.lease.grow(Math.min(sizeBytes, STREAM_SHARE_BYTES))) {
      first.cancel();
      throw new BusyError(`Cannot pass ${digest} on: too many bytes are in flight`);
    }
    const tap = whole ? await this.#tap(digest, sizeBytes) : undefined;
    const relay = new Relay(
      {
        digest,
        window,
        sizeBytes,
        stallMs: this.#budgets.stallMs,
        maxIdleSwitches: MAX_IDLE_SWITCHES,
      },
      { first, nextSource: partial ? context.fetch.nextOfPart : context.fetch.next, tap },
    );
    const head = headOf(digest, { window, sizeBytes, partial, source: first.source });
    const chunks = this.#guarded(relay, digest, context.fetch);
    return {
      ...head,
      source: () => relay.sources.join(',') || first.source,
      body: { chunks, cancel: () => relay.cancel() },
    };
  }

  /**
   * A small blob is answered when all of it is known to be right; if that takes long, its headers
   * go ahead. From nodes, what turns out to be a manifest is no blob.
   */
  async #serveSmall(
    request: PullRequest,
    first: OpenedBody,
    asked: {
      readonly fetch: BlobFetch;
      readonly missing: Missing;
      readonly digest: Digest;
      readonly wanted: Wanted;
      readonly partial: boolean;
    },
  ): Promise<Answer> {
    const { digest, fetch, missing, partial, wanted } = asked;
    const blob = new SmallBlob(
      {
        digest,
        wanted,
        stallMs: this.#budgets.stallMs,
        maxIdleSwitches: MAX_IDLE_SWITCHES,
        maxBytes: HELD_BLOB_BYTES,
      },
      {
        first,
        nextSource: partial ? fetch.nextOfPart : fetch.next,
        lease: request.lease,
        tap: async (sizeBytes) => this.#tap(digest, sizeBytes),
      },
    );
    const reading = blob.read().finally(() => fetch.close());
    const head = (source: string): ReturnType<typeof headOf> =>
      headOf(digest, { window: blob.window, sizeBytes: blob.sizeBytes, partial, source });
    const source = (): string => blob.sources.join(',') || first.source;
    try {
      const body = await within(this.#budgets.peerHeadersMs, reading);
      if (body === undefined) {
        blob.fixSize();
        const chunks = once(reading);
        return { ...head(first.source), source, body: { chunks, cancel: () => blob.cancel() } };
      }
      const isFromNodes = !blob.sources.includes('upstream');
      if (!partial && isFromNodes && isManifest(body)) return missingAnswer(missing, undefined);
      return { ...head(blob.sources.at(-1) ?? first.source), source, body };
    } catch (error) {
      if (error instanceof BusyError) throw error;
      const failure = new UpstreamFailure('cut', messageOf(error), { cause: error });
      return unavailableAnswer(missing, failure, fetch.summary);
    }
  }

  async #tap(digest: Digest, sizeBytes: number): Promise<BlobTap | undefined> {
    try {
      return await this.#keeper?.tap(digest, sizeBytes);
    } catch (error) {
      this.#log.warn({ digest, err: error }, 'cannot keep a blob');
      return undefined;
    }
  }

  async *#guarded(relay: Relay, digest: Digest, fetch: BlobFetch): AsyncGenerator<Buffer> {
    try {
      yield* relay.chunks();
    } catch (error) {
      if (error instanceof WrongBytesError) {
        fetch.reportWrongBytes();
        void this.#abortIngest(digest);
        this.#log.error({ digest, sources: relay.sources }, 'wrong bytes went to a client');
      }
      throw error;
    } finally {
      fetch.close();
    }
  }

  /**
   * containerd would commit what it has got with its next attempt, without asking again. It lets
   * go of the ingest only when it has seen the reset, so this is tried more than once.
   */
  async #abortIngest(digest: Digest): Promise<void> {
    for (const delayMs of ABORT_INGEST_DELAYS_MS) {
      await sleep(delayMs, undefined, { ref: false });
      try {
        if ((await this.#peers.abortIngest(digest)) > 0) return;
      } catch (error) {
        this.#log.warn({ digest, err: error }, 'cannot abort a poisoned ingest');
      }
    }
  }
}

function headOf(
  digest: Digest,
  part: {
    readonly window: Stretch;
    readonly sizeBytes: number;
    readonly partial: boolean;
    readonly source: string;
  },
): Pick<Answer, 'status' | 'headers' | 'decision'> {
  const { window, sizeBytes, partial, source } = part;
  return {
    status: partial ? 206 : 200,
    headers: {
      'content-type': MEDIA_TYPE.octetStream,
      'content-length': window.end - window.start + 1,
      'accept-ranges': 'bytes',
      'docker-content-digest': digest,
      [SOURCE_HEADER]: source,
      ...(partial ? { 'content-range': formatContentRange(window, sizeBytes) } : {}),
    },
    decision: source === 'upstream' ? 'upstream' : 'peer',
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function* once(work: Promise<Buffer>): AsyncGenerator<Buffer> {
  yield await work;
}

function unsatisfiable(sizeBytes?: number): Answer {
  return errorAnswer(
    416,
    { code: 'SIZE_INVALID', message: 'The range lies outside of the blob' },
    {
      decision: 'bad_range',
      ...(sizeBytes === undefined
        ? {}
        : { headers: { 'content-range': formatUnsatisfiedContentRange(sizeBytes) } }),
    },
  );
}
