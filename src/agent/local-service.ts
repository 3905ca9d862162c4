import { create } from '@bufbuild/protobuf';
import {
  Metadata,
  status,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { Locator, KeyHolder } from '../discovery/locate.ts';
import { parseDigest, type Digest } from '../oci/digest.ts';
import type { LocateKey, LocateSummary } from '../rpc/agent-client.ts';
import { tagFromMessage, tagToMessage } from '../rpc/agent-protocol.ts';
import { proofFromMessage } from '../rpc/proof-summary.ts';
import {
  AbortIngestResponseSchema,
  HolderSchema,
  KeepResponseSchema,
  LocateResponseSchema,
  LocateSummarySchema,
  ObserveResponseSchema,
  RecordProofResponseSchema,
  WatchResponseSchema,
  type AbortIngestRequest,
  type KeepRequest,
  type LocateRequest,
  type LocateResponse,
  type ObserveRequest,
  type RecordProofRequest,
  type WatchRequest,
  type WatchResponse,
} from '../rpc/gen/salvor/agent/v1/agent_pb.ts';
import type { ImageKeeper, KeepNotice } from './keeper/image-keeper.ts';
import type { LastProof } from './last-proof.ts';
import type { Observations } from './observations.ts';
import type { RegistryWatch } from './registry-watch.ts';
import { RpcFailure } from './rpc-failure.ts';
import { streamHandler, unaryHandler, type HandlerContext } from './rpc-handlers.ts';
import type { ContentStore } from './store.ts';

/** How long a registry may have silent members asked again, milliseconds. */
const MAX_WAIT_MS = 60_000;
/** Bounds on the silence that a registry may ask to be ended after, milliseconds. */
const MIN_SILENCE_MS = 200;
const MAX_SILENCE_MS = 3_600_000;
/** The most that Linux counts to: PID_MAX_LIMIT. */
const MAX_PID = 4_194_304;
/** How many images, and how many indexes of each, a notice about one blob may name. */
const MAX_IMAGES = 64;
/** A registry, a repository and a tag of what specifications allow; bytes of a media type. */
const MAX_NAME = 1024;
const MAX_MEDIA_TYPE = 256;
/** Clocks differ; what comes from further in the future would win against the truth for ever. */
const MAX_CLOCK_SKEW_MS = 60_000;

/** Serves the registry on the same node, over the unix socket. */
export class LocalService {
  readonly #locator: Locator;
  readonly #observations: Observations;
  readonly #store: Pick<ContentStore, 'abortIngest'>;
  readonly #watch: Pick<RegistryWatch, 'start'>;
  readonly #keeper: Pick<ImageKeeper, 'keep'> | undefined;
  readonly #proofs: Pick<LastProof, 'record'>;
  readonly #context: HandlerContext;
  /** For each watch under way, what ends it in peace. */
  readonly #endings = new Set<() => void>();

  constructor(
    dependencies: {
      locator: Locator;
      observations: Observations;
      store: Pick<ContentStore, 'abortIngest'>;
      watch: Pick<RegistryWatch, 'start'>;
      /** Left out where nothing is to be kept. */
      keeper?: Pick<ImageKeeper, 'keep'> | undefined;
      proofs: Pick<LastProof, 'record'>;
    } & HandlerContext,
  ) {
    this.#locator = dependencies.locator;
    this.#observations = dependencies.observations;
    this.#store = dependencies.store;
    this.#watch = dependencies.watch;
    this.#keeper = dependencies.keeper;
    this.#proofs = dependencies.proofs;
    this.#context = { log: dependencies.log, metrics: dependencies.metrics };
  }

  /** The handlers for a grpc-js server. */
  implementation(): UntypedServiceImplementation {
    const context = this.#context;
    return {
      locate: streamHandler(
        'locate',
        context,
        (call: ServerWritableStream<LocateRequest, LocateResponse>, signal) =>
          this.#locate(call, signal),
      ),
      observe: unaryHandler(
        'observe',
        context,
        async (call: ServerUnaryCall<ObserveRequest, unknown>) => this.#observe(call.request),
      ),
      abortIngest: unaryHandler(
        'abortIngest',
        context,
        async (call: ServerUnaryCall<AbortIngestRequest, unknown>, signal) => {
          const digest = digestFrom(call.request.digest);
          const aborted = await this.#store.abortIngest(digest, { signal });
          context.log.warn({ digest, aborted }, 'threw away a poisoned ingest');
          return create(AbortIngestResponseSchema, { aborted });
        },
      ),
      keep: unaryHandler('keep', context, async (call: ServerUnaryCall<KeepRequest, unknown>) => {
        // A registry that has stopped waiting still wants it done.
        const restored = (await this.#keeper?.keep(noticeOf(call.request))) ?? 0;
        return create(KeepResponseSchema, { restored });
      }),
      recordProof: unaryHandler(
        'recordProof',
        context,
        async (call: ServerUnaryCall<RecordProofRequest, unknown>) => {
          const proof = proofFromMessage(call.request);
          if (proof === undefined) throw new RpcFailure(status.INVALID_ARGUMENT, 'no proof');
          await this.#proofs.record(proof);
          return create(RecordProofResponseSchema);
        },
      ),
      watch: (
        call: ServerReadableStream<WatchRequest, WatchResponse>,
        callback: sendUnaryData<WatchResponse>,
      ) => this.#watchRegistry(call, callback),
    };
  }

  /** Lets go of the registry, which is not to be ended for what it cannot say any more. */
  endWatches(): void {
    for (const end of this.#endings) end();
  }

  async #locate(
    call: ServerWritableStream<LocateRequest, LocateResponse>,
    signal: AbortSignal,
  ): Promise<void> {
    const { nodes, waitMs } = call.request;
    const again = waitMs === 0 ? undefined : { nodes, waitMs: Math.min(waitMs, MAX_WAIT_MS) };
    for await (const event of this.#locator.locate(keyOf(call.request), { signal, again })) {
      if (signal.aborted) return;
      // Answers are few and small: as many as there are members.
      call.write(
        create(LocateResponseSchema, {
          event:
            'holder' in event
              ? { case: 'holder', value: holderToMessage(event.holder) }
              : { case: 'summary', value: summaryToMessage(event.summary) },
        }),
      );
    }
  }

  #observe(request: ObserveRequest): unknown {
    const tag = request.tag === undefined ? undefined : tagFromMessage(request.tag);
    if (request.name === '' || tag?.observedAtMs === undefined) {
      throw new RpcFailure(
        status.INVALID_ARGUMENT,
        'an observation needs a name, a tag and a time',
      );
    }
    if (request.name.length > MAX_NAME || tag.mediaType.length > MAX_MEDIA_TYPE) {
      throw new RpcFailure(status.INVALID_ARGUMENT, 'a name or media type that is too long');
    }
    if (tag.observedAtMs > Date.now() + MAX_CLOCK_SKEW_MS) {
      throw new RpcFailure(status.INVALID_ARGUMENT, 'a time in the future');
    }
    this.#observations.record(request.name, { ...tag, observedAtMs: tag.observedAtMs });
    return create(ObserveResponseSchema);
  }

  #watchRegistry(
    call: ServerReadableStream<WatchRequest, WatchResponse>,
    callback: sendUnaryData<WatchResponse>,
  ): void {
    let watched: ReturnType<RegistryWatch['start']> | undefined;
    const finish = (outcome: RpcFailure | undefined): void => {
      if (!this.#endings.delete(end)) return;
      void watched?.then((watch) => watch?.stop());
      if (outcome === undefined) callback(null, create(WatchResponseSchema));
      else callback(outcome);
    };
    const end = (): void => finish(undefined);
    this.#endings.add(end);
    call.on('data', (request: WatchRequest) => {
      const terms = watchTerms(request);
      if (terms === undefined) {
        finish(new RpcFailure(status.INVALID_ARGUMENT, 'no process, or no time'));
        return;
      }
      if (!this.#endings.has(end)) return;
      watched ??= this.#watch.start(terms).then((watch) => {
        if (watch === undefined) {
          finish(new RpcFailure(status.FAILED_PRECONDITION, 'cannot see that process'));
        } else if (this.#endings.has(end)) call.sendMetadata(new Metadata());
        return watch;
      });
      void watched.then((watch) => watch?.beat());
    });
    call.on('error', end);
    call.on('cancelled', end);
    call.on('end', end);
  }
}

function watchTerms(
  request: WatchRequest,
): { pid: number; timeoutMs: number; processStart: string } | undefined {
  const [pid, timeoutMs] = [Number(request.pid), Number(request.timeoutMs)];
  if (pid < 1 || pid > MAX_PID || timeoutMs < 1) return undefined;
  const { processStart } = request;
  return {
    pid,
    processStart,
    timeoutMs: Math.min(Math.max(timeoutMs, MIN_SILENCE_MS), MAX_SILENCE_MS),
  };
}

function noticeOf(request: KeepRequest): KeepNotice {
  return {
    digest: digestFrom(request.digest),
    images: request.images.slice(0, MAX_IMAGES).map(({ manifest, indexes }) => ({
      manifest: digestFrom(manifest),
      indexes: indexes.slice(0, MAX_IMAGES).map(digestFrom),
    })),
  };
}

function digestFrom(text: string): Digest {
  const digest = parseDigest(text);
  if (!digest.ok) throw new RpcFailure(status.INVALID_ARGUMENT, digest.reason);
  return digest.value;
}

function keyOf(request: LocateRequest): LocateKey {
  if (request.key.case === 'name' && request.key.value !== '') return { name: request.key.value };
  if (request.key.case !== 'digest') throw new RpcFailure(status.INVALID_ARGUMENT, 'no key');
  return { digest: digestFrom(request.key.value) };
}

function summaryToMessage({
  asked,
  failed,
  silent = [],
}: LocateSummary): ReturnType<typeof create<typeof LocateSummarySchema>> {
  return create(LocateSummarySchema, { asked, failed, silent: [...silent] });
}

function holderToMessage(holder: KeyHolder): ReturnType<typeof create<typeof HolderSchema>> {
  return create(HolderSchema, {
    node: holder.member.name,
    address: holder.member.address,
    sizeBytes: BigInt(holder.sizeBytes),
    verified: holder.verified,
    busy: holder.busy,
    tags: holder.tags.map(tagToMessage),
    registrySeen: holder.registrySeen,
    far: holder.far,
  });
}
