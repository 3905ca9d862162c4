import type { ByteBudget } from './byte-budget.ts';
import type { Savings, SavingsTotals } from './savings.ts';
import type { Endpoint } from './upstream/endpoint.ts';
import type { RateLimit } from './upstream/rate-limit.ts';
import type { Upstream } from './upstream/upstream.ts';
import type { Upstreams } from './upstream/upstreams.ts';

/** What is known of one URL, or of all URLs of an upstream together. */
export interface EndpointState {
  /** "unknown": it has not answered this process yet, nor failed. */
  readonly state: 'up' | 'outage' | 'unknown';
  /** When the outage began, ISO 8601. */
  readonly since?: string;
  /** The kind of failure that proved it: "refused", "timeout" … */
  readonly cause?: string;
  readonly reason?: string;
  /** What it said last about how much may be asked of it, if it ever did. */
  readonly rateLimit?: {
    readonly limit?: number;
    readonly remaining: number;
    readonly windowSeconds?: number;
    /** When it said so, ISO 8601. */
    readonly at: string;
  };
  /** In this outage: requests that nodes or memory answered in full. */
  readonly savedRequests?: number;
}

/** What a registry knows of one upstream, for people and tools. */
export interface UpstreamStatus extends EndpointState {
  readonly registry: string;
  /** Where there are several, in the order in which they are asked. */
  readonly endpoints?: readonly (EndpointState & { readonly host: string })[];
}

/** What a registry knows of itself and its upstreams. */
export interface RegistryStatus {
  readonly upstreams: readonly UpstreamStatus[];
  /** Since the start of the process. */
  readonly totals: SavingsTotals;
  /** Held, or set aside, for requests that are being answered. */
  readonly inFlightBytes: number;
}

/** The state of every upstream that was asked for since the start. */
export function registryStatus(parts: {
  readonly upstreams: Pick<Upstreams, 'all'>;
  readonly savings: Pick<Savings, 'totals'>;
  readonly budget: Pick<ByteBudget, 'usedBytes'>;
}): RegistryStatus {
  const { budget, savings, upstreams } = parts;
  return {
    upstreams: upstreams.all().map(upstreamStatus),
    totals: savings.totals,
    inFlightBytes: budget.usedBytes,
  };
}

function upstreamStatus(upstream: Upstream): UpstreamStatus {
  const { endpoints, name, outage, hasAnswered } = upstream;
  const [first] = endpoints;
  if (first !== undefined && endpoints.length === 1) return { registry: name, ...stateOf(first) };
  return {
    registry: name,
    ...stateOf({ outage, hasAnswered, rateLimit: undefined }),
    endpoints: endpoints.map((endpoint) => ({ host: endpoint.host, ...stateOf(endpoint) })),
  };
}

function stateOf(of: Pick<Endpoint, 'outage' | 'hasAnswered' | 'rateLimit'>): EndpointState {
  const { outage, hasAnswered, rateLimit } = of;
  const limits = rateLimit === undefined ? {} : { rateLimit: rateLimitState(rateLimit) };
  if (outage === undefined) return { state: hasAnswered ? 'up' : 'unknown', ...limits };
  return {
    state: 'outage',
    since: new Date(outage.sinceMs).toISOString(),
    cause: outage.cause.kind,
    reason: outage.cause.message,
    savedRequests: outage.savedRequests,
    ...limits,
  };
}

function rateLimitState(rateLimit: RateLimit): NonNullable<EndpointState['rateLimit']> {
  const { limit, remaining, windowSeconds, atMs } = rateLimit;
  return {
    ...(limit === undefined ? {} : { limit }),
    remaining,
    ...(windowSeconds === undefined ? {} : { windowSeconds }),
    at: new Date(atMs).toISOString(),
  };
}
