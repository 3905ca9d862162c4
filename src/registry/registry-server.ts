import { chmod, mkdir, rm } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname } from 'node:path';
import { bulkhead, BulkheadRejectedError } from 'cockatiel';
import fastify, {
  type FastifyServerOptions,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import { ServerDrain } from '../http/server-drain.ts';
import { UnreadableRequests } from '../http/unreadable-requests.ts';
import { limitWaiting } from '../http/waiting-connections.ts';
import type { Platform } from '../oci/descriptor.ts';
import { parseV2Url, type V2Request } from '../oci/path.ts';
import { SELF_TEST_REGISTRY } from '../oci/self-test.ts';
import type { Logger } from '../telemetry/logger.ts';
import {
  badMethodAnswer,
  baseAnswer,
  errorAnswer,
  stopAnswer,
  type Answer,
  type AnswerDecision,
} from './answer.ts';
import type { BlobPull } from './blob-pull.ts';
import { writeBody, writeWholeBody, type SentBody } from './body-writer.ts';
import type { Limits } from './budgets.ts';
import type { ByteBudget, ByteLease } from './byte-budget.ts';
import type { ManifestPull } from './manifest-pull.ts';
import type { Policies } from '../policy/policy.ts';
import { joinAddress, splitAddress } from '../rpc/address.ts';
import type { PullRequest, PullUpstream } from './pull-request.ts';
import type { RegistryMetrics } from './registry-metrics.ts';
import type { RequestReports } from './request-reports.ts';
import { Trace } from './trace.ts';
import type { Turn, Turns } from './turns.ts';
import { busyAnswer } from './unavailable.ts';

export interface RegistryServerOptions {
  readonly limits: Limits;
  /** For requests that name no registry; empty: they are refused. */
  readonly defaultUpstream: string;
  /** Requests that are not all there after this long are let go, milliseconds. */
  readonly requestTimeoutMs?: number;
  /**
   * Whether a request may say, in the header {@link PLATFORM_HEADER}, for which platform a tag must
   * be complete to be answered in an outage. Not unless told: it is for proofs alone.
   */
  readonly takesPlatform?: boolean;
  /** Of the program; /v2/ says it, so that a port can be told from any other registry's. */
  readonly version?: string;
}

/** "linux/arm64", "linux/arm/v7": whom a proof is for. */
const PLATFORM_HEADER = 'salvor-platform';

/** The registries that images come from, as far as requests need them. */
export interface ServedUpstreams {
  /** @returns undefined when policy does not allow it */
  get(name: string): PullUpstream | undefined;
  /** @returns to be called once, when the request that uses it is over */
  hold(upstream: PullUpstream): () => void;
}

/** Unless told otherwise. */
const REQUEST_TIMEOUT_MS = 15_000;
/** Idle connections are kept longer than containerd keeps them (30 s), milliseconds. */
const KEEP_ALIVE_MS = 60_000;
/**
 * No route has a schema. Saying so keeps the compilers of schemas, several megabytes of every
 * node's memory, from being loaded.
 */
const NO_COMPILERS = {
  buildValidator: () => () => () => true,
  buildSerializer: () => () => JSON.stringify,
} as unknown as NonNullable<
  NonNullable<FastifyServerOptions['schemaController']>['compilersFactory']
>;

/** What may change while the server runs. A request has one of it from beginning to end. */
export interface Routing {
  /** For requests that name no registry; empty: they are refused. */
  readonly defaultUpstream: string;
  readonly policies: Policies;
}

/** One request on its way to its answer. */
interface Exchange {
  readonly request: FastifyRequest;
  readonly raw: ServerResponse;
  readonly parsed: ReturnType<typeof parseV2Url>;
  readonly trace: Trace;
  /** Pays for what is held for it, until its last byte is out. */
  readonly lease: ByteLease;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  routing: Routing;
  /** Says that it uses its upstream no longer. */
  letGo?: () => void;
  /** Set when it has become one, for something that an upstream has. */
  pull?: PullRequest;
}

/** The OCI Distribution API, for reading. */
export class RegistryServer {
  readonly #options: RegistryServerOptions;
  readonly #upstreams: ServedUpstreams;
  readonly #manifests: Pick<ManifestPull, 'answer'>;
  readonly #blobs: Pick<BlobPull, 'answer'>;
  readonly #metrics: Pick<RegistryMetrics, 'requests' | 'requestSeconds' | 'streams'>;
  readonly #budget: Pick<ByteBudget, 'open'>;
  readonly #reports: Pick<RequestReports, 'add'>;
  readonly #turns: Pick<Turns, 'enter'> | undefined;
  readonly #log: Logger;
  readonly #slots;
  readonly #unreadable: UnreadableRequests;
  readonly #app: FastifyInstance;
  readonly #drain: ServerDrain;
  #routing: Routing;

  constructor(
    options: RegistryServerOptions,
    dependencies: {
      upstreams: ServedUpstreams;
      manifests: Pick<ManifestPull, 'answer'>;
      blobs: Pick<BlobPull, 'answer'>;
      policies: Policies;
      metrics: Pick<RegistryMetrics, 'requests' | 'requestSeconds' | 'streams'>;
      budget: Pick<ByteBudget, 'open'>;
      reports: Pick<RequestReports, 'add'>;
      /** Left out: bodies run as they come. */
      turns?: Pick<Turns, 'enter'>;
      log: Logger;
    },
  ) {
    this.#options = options;
    this.#upstreams = dependencies.upstreams;
    this.#manifests = dependencies.manifests;
    this.#blobs = dependencies.blobs;
    this.#routing = {
      defaultUpstream: options.defaultUpstream,
      policies: dependencies.policies,
    };
    this.#metrics = dependencies.metrics;
    this.#budget = dependencies.budget;
    this.#reports = dependencies.reports;
    this.#turns = dependencies.turns;
    this.#log = dependencies.log;
    this.#slots = bulkhead(options.limits.maxStreams, 0);
    this.#unreadable = new UnreadableRequests({
      onAnswer: (status) => this.#countInvalid('unreadable', status),
    });
    this.#app = this.#createApp();
    this.#drain = new ServerDrain(this.#app.server);
  }

  /**
   * Starts to listen.
   *
   * @param address "host:port"; port 0 takes a free one
   * @returns the address it listens on
   * @throws when the address cannot be taken
   */
  async listen(address: string): Promise<string> {
    await this.#app.listen(splitAddress(address));
    const bound = this.#app.server.address() as AddressInfo;
    return joinAddress(bound.address, bound.port);
  }

  /**
   * Starts to listen on a unix socket that only this user and group may use. A socket file that a
   * dead process left behind is replaced.
   *
   * @throws when the socket cannot be made
   */
  async listenUnix(path: string): Promise<void> {
    await mkdir(dirname(path), { recursive: true, mode: 0o750 });
    await rm(path, { force: true });
    await this.#app.listen({ path });
    await chmod(path, 0o660);
  }

  /** Counts for requests that come from now on. */
  reroute(routing: Routing): void {
    this.#routing = routing;
  }

  /** Takes no new requests and lets running ones end; what still runs at the signal is cut. */
  close(options: { readonly signal: AbortSignal }): Promise<void> {
    return this.#drain.run(() => this.#app.close(), options);
  }

  #createApp(): FastifyInstance {
    const { requestTimeoutMs = REQUEST_TIMEOUT_MS } = this.#options;
    const app = fastify({
      // A path that cannot be decoded: the parser of paths says why.
      frameworkErrors: (_error, request, reply) => void this.#handle(request, reply),
      clientErrorHandler: this.#unreadable.refuse,
      logger: false,
      schemaController: { compilersFactory: NO_COMPILERS },
      http: {
        maxHeaderSize: this.#options.limits.maxHeaderBytes,
        // How often requests are looked at that take too long to come in.
        connectionsCheckingInterval: requestTimeoutMs / 5,
      },
      bodyLimit: 1024,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      exposeHeadRoutes: false,
      forceCloseConnections: 'idle',
      return503OnClosing: true,
    });
    app.server.headersTimeout = requestTimeoutMs;
    limitWaiting(app.server, { max: this.#options.limits.maxIdleConnections });
    app.server.on('connect', (_request, socket) => {
      const answer = badMethodAnswer();
      this.#countInvalid(answer.decision, answer.status);
      this.#unreadable.end(socket, answer);
    });
    // Nothing that is pushed here is ever read: no parser, no body.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', (_request, _payload, done) => done(null));
    app.route({
      method: ['GET', 'HEAD'],
      url: '/*',
      handler: (request, reply) => this.#handle(request, reply),
    });
    app.setNotFoundHandler((request, reply) => this.#handle(request, reply));
    // What the framework dislikes about a request is answered like every other one.
    app.setErrorHandler((_error, request, reply) => this.#handle(request, reply));
    return app;
  }

  #countInvalid(decision: AnswerDecision, status: number): void {
    this.#metrics.requests.inc({ kind: 'invalid', decision, status });
  }

  async #handle(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    reply.hijack();
    const gone = new AbortController();
    const { raw } = reply;
    raw.once('close', () => {
      if (!raw.writableFinished) gone.abort();
    });
    raw.on('error', () => gone.abort());
    this.#unreadable.watch(raw);
    this.#metrics.streams.inc();
    const exchange: Exchange = {
      request,
      raw,
      parsed: parseV2Url(request.raw.url ?? ''),
      trace: new Trace(),
      lease: this.#budget.open(),
      signal: gone.signal,
      routing: this.#routing,
    };
    try {
      // A request has its slot until its last byte is out.
      await this.#slots
        .execute(() => this.#serve(exchange, () => this.#decide(exchange)))
        .catch((error: unknown) => {
          if (!(error instanceof BulkheadRejectedError)) throw error;
          return this.#serve(exchange, async () => busyAnswer('requests'));
        });
    } catch (error) {
      // A bug, or a client that went while it was being answered.
      if (!gone.signal.aborted) {
        this.#log.error({ err: error, url: request.raw.url }, 'request failed');
      }
      raw.destroy();
    } finally {
      exchange.lease.release();
      exchange.letGo?.();
      this.#metrics.streams.dec();
    }
  }

  async #serve(exchange: Exchange, decide: () => Promise<Answer>): Promise<void> {
    const { parsed, trace } = exchange;
    const kind = parsed.ok ? parsed.value.target.kind : 'invalid';
    const answer = await decide();
    const headersMs = trace.elapsedMs();
    this.#metrics.requestSeconds.observe({ kind }, headersMs / 1000);
    const sent = await this.#send(exchange, answer).catch((error: unknown) => {
      stopAnswer(answer);
      throw error;
    });
    this.#reports.add(exchange, { kind, answer, sent, headersMs });
  }

  async #decide(exchange: Exchange): Promise<Answer> {
    const { request, parsed } = exchange;
    if (!parsed.ok) {
      const { status, code, message } = parsed;
      return errorAnswer(status, { code, message }, { decision: 'bad_request' });
    }
    const { method } = request;
    if (method !== 'GET' && method !== 'HEAD') {
      return badMethodAnswer();
    }
    return this.#pull(exchange, parsed.value);
  }

  async #pull(exchange: Exchange, asked: V2Request): Promise<Answer> {
    const { lease, request, signal, trace } = exchange;
    const { target } = asked;
    if (target.kind === 'base') return baseAnswer(this.#options.version);
    if (target.kind !== 'manifest' && target.kind !== 'blob') {
      const message =
        'This mirror serves manifests and blobs; ask the registry itself for the rest';
      return errorAnswer(404, { code: 'UNSUPPORTED', message }, { decision: 'unsupported' });
    }
    // In one turn, so that routing and upstream come from the same configuration.
    exchange.routing = this.#routing;
    const { defaultUpstream, policies } = exchange.routing;
    const registry = asked.ns ?? asked.registry ?? defaultUpstream;
    const upstream = registry === '' ? undefined : this.#upstreams.get(registry);
    if (upstream === undefined) {
      const message =
        registry === ''
          ? 'No registry is named: pass ns=, or put the registry first in the path, ' +
            'or configure registry.defaultUpstream'
          : `The registry ${registry} is not one that this mirror may ask`;
      return errorAnswer(404, { code: 'NAME_UNKNOWN', message }, { decision: 'not_allowed' });
    }
    exchange.letGo = this.#upstreams.hold(upstream);
    const name = `${upstream.name}/${target.repository}`;
    const policy = policies.for(name, upstream.peers);
    if (policy.mode === 'bypass') {
      const message = `This mirror is told to stay out of pulls of ${name}`;
      return errorAnswer(404, { code: 'NAME_UNKNOWN', message }, { decision: 'bypass' });
    }
    const { headers } = request;
    const platform = this.#options.takesPlatform === true ? platformIn(headers) : undefined;
    const pull: PullRequest = {
      policy,
      method: request.method as 'GET' | 'HEAD',
      upstream,
      repository: target.repository,
      ...(platform === undefined ? {} : { platform }),
      accept: headers.accept,
      range: headers.range,
      authorization: headers.authorization,
      userAgent: headers['user-agent'],
      signal,
      trace,
      lease,
    };
    exchange.pull = pull;
    const { outage } = upstream;
    if (outage !== undefined) trace.passOver(outage.cause.kind);
    const answer =
      target.kind === 'blob'
        ? await this.#blobs.answer(pull, target.digest)
        : await this.#manifests.answer(pull, target.reference);
    if (asked.ns === undefined) return answer;
    if (upstream.name === SELF_TEST_REGISTRY) return { ...answer, decision: 'self_test' };
    return { ...answer, headers: { ...answer.headers, 'oci-namespace': asked.ns } };
  }

  async #send(exchange: Exchange, answer: Answer): Promise<SentBody> {
    const { request, raw, signal } = exchange;
    const { body } = answer;
    if (signal.aborted) {
      stopAnswer(answer);
      return { end: 'client_gone', bytes: 0 };
    }
    const headers = { ...answer.headers, 'docker-distribution-api-version': 'registry/2.0' };
    if (
      Number(request.headers['content-length'] ?? 0) > 0 ||
      'transfer-encoding' in request.headers
    ) {
      // What the client still sends would be read as its next request.
      Object.assign(headers, { connection: 'close' });
    }
    raw.writeHead(answer.status, headers);
    if (body === undefined || request.method === 'HEAD') {
      stopAnswer(answer);
      raw.end();
      return { end: 'complete', bytes: 0 };
    }
    const options = { clientStallMs: this.#options.limits.clientStallMs, signal };
    return Buffer.isBuffer(body)
      ? writeWholeBody(raw, body, options)
      : writeBody(raw, body, { ...options, turn: this.#turnOf(exchange) });
  }

  #turnOf({ parsed }: Exchange): Turn | undefined {
    if (!parsed.ok || parsed.value.target.kind !== 'blob') return undefined;
    return this.#turns?.enter(parsed.value.target.digest);
  }
}

function platformIn(headers: FastifyRequest['headers']): Platform | undefined {
  const value = headers[PLATFORM_HEADER];
  const [os = '', architecture = '', variant] = typeof value === 'string' ? value.split('/') : [];
  if (os === '' || architecture === '') return undefined;
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}
