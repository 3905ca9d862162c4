import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { ByteBudget, type ByteLease } from '../../../src/registry/byte-budget.ts';
import { DEFAULT_POLICY, type PullPolicy } from '../../../src/policy/policy.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { Trace } from '../../../src/registry/trace.ts';
import type { UpstreamResponse } from '../../../src/registry/upstream/upstream-client.ts';
import type { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import type { AskOptions, AskRequest, Upstream } from '../../../src/registry/upstream/upstream.ts';
import type {
  AgentClient,
  LocateKey,
  LocatedHolder,
  LocateSummary,
} from '../../../src/rpc/agent-client.ts';
import type { CallLimits } from '../../../src/rpc/agent-channel.ts';
import { AgentError } from '../../../src/rpc/agent-error.ts';
import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';
import type { SecondLook } from '../../../src/rpc/locate-messages.ts';
import type { ReadStream } from '../../../src/rpc/peer-client.ts';
import type { ReadFrame } from '../../../src/rpc/read-frame.ts';

type LocateLimits = CallLimits & { readonly again?: SecondLook };

/** What one node of a test holds: bytes, and how it behaves when it is read. */
export interface FakeHolding {
  readonly node: string;
  readonly bytes: Buffer;
  readonly verified?: boolean;
  /** It is in another zone. */
  readonly far?: boolean;
  /** What it says while it sends, where that is another thing than what it said before. */
  readonly verifiedWhenRead?: boolean;
  readonly claimedSizeBytes?: number;
  /** What it finds when it is asked to hash its copy; it does not come to it unless told. */
  readonly hashes?: 'right' | 'wrong';
  /** Sends no more than this, then breaks. */
  readonly breaksAfter?: number;
  readonly silent?: boolean;
  /** What it knows of any name. */
  readonly tags?: readonly TagStatement[];
}

/** The own agent and all others in one: answers for every node of a test. */
export class FakeAgent {
  readonly reads: { digest: Digest; offsetBytes: number; lengthBytes: number | undefined }[] = [];
  readonly reported: string[] = [];
  readonly abortedIngests: Digest[] = [];
  /** What the own node knows of any name. */
  tags: readonly TagStatement[] = [];
  registrySeen = true;
  readonly observed: string[] = [];
  readonly lookups: LocateKey[] = [];
  /** A node is named only for the digest of its own bytes; else every node for any digest. */
  isExact = false;
  /** Other nodes answer that they have nothing. */
  hasNothing = false;
  /** Nodes that give no answer, until they are taken out by {@link comeBack}. */
  readonly away = new Set<string>();
  /** The second looks among the lookups. */
  readonly secondLooks: SecondLook[] = [];
  readonly #comers = new Set<() => void>();
  readonly #holdings: readonly FakeHolding[];
  readonly #hashed = new Map<string, 'right' | 'wrong'>();

  constructor(holdings: readonly FakeHolding[] = []) {
    this.#holdings = holdings;
  }

  /** The own agent, as the registry sees it. */
  get client(): AgentClient {
    return {
      connect: async () => true,
      // What the own node knows of names it has nothing of.
      read: (request: (typeof this.reads)[number]) => this.#stream(undefined, request),
      locate: (key: LocateKey, limits: LocateLimits) => {
        this.lookups.push(key);
        if (limits.again !== undefined) this.secondLooks.push(limits.again);
        return this.#locate(key, limits);
      },
      abortIngest: async (digest: Digest) => {
        this.abortedIngests.push(digest);
        return 1;
      },
      observe: async (name: string, { digest, observedAtMs }: TagStatement) => {
        this.observed.push(`${name} ${digest} ${observedAtMs}`);
      },
    } as unknown as AgentClient;
  }

  /** The agents of other nodes. */
  get pool(): { client(address: string, name: string): AgentClient } {
    return { client: (_, name) => this.#peer(name) };
  }

  /** From now on the node answers. */
  comeBack(node: string): void {
    this.away.delete(node);
    for (const wake of this.#comers) wake();
  }

  async *#locate(
    key: LocateKey,
    { again, signal }: LocateLimits,
  ): AsyncGenerator<{ holder: LocatedHolder } | { summary: LocateSummary }> {
    const isAsked = (node: string): boolean =>
      again === undefined || again.nodes.length === 0 || again.nodes.includes(node);
    if ('name' in key && isAsked('me')) {
      const { tags, registrySeen } = this;
      const state = { sizeBytes: 0, verified: false, busy: false, tags, registrySeen, far: false };
      yield { holder: { node: 'me', address: '', ...state } };
    }
    const asked = this.#holdings.filter(({ node }) => isAsked(node));
    const silent: string[] = [];
    const waits = new Map(
      asked.map((holding) => [
        holding,
        this.#untilBack(holding.node, again?.waitMs ?? 0, signal).then(() => holding),
      ]),
    );
    while (waits.size > 0) {
      const holding = await Promise.race(waits.values());
      waits.delete(holding);
      if (this.away.has(holding.node)) silent.push(holding.node);
      else yield* this.#answers(holding, key);
    }
    const count = asked.length + (isAsked('me') ? 1 : 0);
    yield { summary: { asked: count, failed: silent.length, silent } };
  }

  *#answers(holding: FakeHolding, key: LocateKey): Generator<{ holder: LocatedHolder }> {
    const { node, bytes, verified = true, far = false, claimedSizeBytes, tags = [] } = holding;
    const isOf = 'name' in key ? tags.length > 0 : !this.isExact || digestOf(bytes) === key.digest;
    if (!isOf || this.hasNothing) return;
    const sizeBytes = claimedSizeBytes ?? bytes.length;
    const state = { sizeBytes, verified, busy: false, registrySeen: true, far };
    yield { holder: { node, address: `${node}:1`, ...state, tags: 'name' in key ? tags : [] } };
  }

  async #untilBack(node: string, waitMs: number, signal?: AbortSignal): Promise<void> {
    if (!this.away.has(node) || waitMs === 0) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const end = (): void => resolve(undefined);
    const look = (): void => {
      if (!this.away.has(node)) end();
    };
    const timer = setTimeout(end, waitMs);
    this.#comers.add(look);
    signal?.addEventListener('abort', end, { once: true });
    await promise;
    clearTimeout(timer);
    this.#comers.delete(look);
  }

  #peer(node: string): AgentClient {
    const holding = this.#holdings.find((one) => one.node === node);
    return {
      read: (request: (typeof this.reads)[number]) => {
        this.reads.push(request);
        return this.#stream(holding, request);
      },
      reportCorrupt: async () => {
        this.reported.push(node);
        if (holding?.hashes === undefined) throw new AgentError('deadline', 'still hashing');
        this.#hashed.set(node, holding.hashes);
      },
    } as unknown as AgentClient;
  }

  #stream(
    holding: FakeHolding | undefined,
    request: { offsetBytes: number; lengthBytes?: number | undefined },
  ): ReadStream {
    const stop = Promise.withResolvers<never>();
    stop.promise.catch(() => undefined);
    const cancelled = new AgentError('cancelled', 'cancelled');
    const hashed = this.#hashed.get(holding?.node ?? '');
    const frames = async function* (): AsyncGenerator<ReadFrame> {
      if (holding === undefined || hashed === 'wrong') throw new AgentError('not_held', 'not held');
      if (holding.silent === true) await stop.promise;
      if (request.offsetBytes > holding.bytes.length) throw new AgentError('invalid', 'offset');
      const { bytes, breaksAfter = Number.POSITIVE_INFINITY, verified = true } = holding;
      const { offsetBytes } = request;
      const end = request.lengthBytes ? offsetBytes + request.lengthBytes : bytes.length;
      const wanted = bytes.subarray(offsetBytes, Math.min(end, offsetBytes + breaksAfter));
      const first = {
        sizeBytes: bytes.length,
        verified: holding.verifiedWhenRead ?? (verified || hashed === 'right'),
      };
      for (let at = 0; at === 0 || at < wanted.length; at += 100_000) {
        yield { data: wanted.subarray(at, at + 100_000), ...(at === 0 ? first : {}) };
      }
      if (end - offsetBytes > wanted.length) throw new AgentError('unavailable', 'node has died');
    };
    return {
      [Symbol.asyncIterator]: frames,
      cancel: () => stop.reject(cancelled),
    };
  }
}

/** An upstream that answers as a test says. */
export class FakeUpstream {
  readonly asked: AskRequest[] = [];
  readonly bodyFailures: UpstreamFailure[] = [];
  readonly #upstream = {};
  outage: object | undefined;
  hasAnswered = true;
  answer: (
    request: AskRequest,
    options: AskOptions,
  ) => Promise<UpstreamResponse> | UpstreamResponse;

  constructor(answer: FakeUpstream['answer']) {
    this.answer = answer;
  }

  get upstream(): Upstream {
    // Always the same object: only requests to one upstream share its answers.
    return Object.assign(this.#upstream, {
      name: 'registry.test',
      peers: 'fallback',
      isBlobOriginDown: false,
      hasAnswered: this.hasAnswered,
      outage: this.outage,
      ask: async (request: AskRequest, options: AskOptions) => {
        this.asked.push(request);
        return this.answer(request, options);
      },
      recordBodyFailure: (failure: UpstreamFailure) => this.bodyFailures.push(failure),
    }) as unknown as Upstream;
  }
}

/** A budget that is never used up. */
export function plentyOfBytes(): ByteBudget {
  return new ByteBudget({ limitBytes: Number.MAX_SAFE_INTEGER });
}

/** A client's request to the registry of a test. */
export function pullRequest(
  upstream: FakeUpstream,
  options: {
    readonly method?: 'GET' | 'HEAD';
    readonly range?: string;
    readonly policy?: Partial<PullPolicy>;
    readonly signal?: AbortSignal;
    readonly authorization?: string;
    readonly lease?: ByteLease;
  } = {},
): PullRequest {
  return {
    method: options.method ?? 'GET',
    upstream: upstream.upstream,
    repository: 'team/app',
    policy: { ...DEFAULT_POLICY, ...options.policy },
    accept: undefined,
    range: options.range,
    authorization: options.authorization,
    userAgent: 'test',
    signal: options.signal ?? new AbortController().signal,
    trace: new Trace(),
    lease: options.lease ?? plentyOfBytes().open(),
  };
}
