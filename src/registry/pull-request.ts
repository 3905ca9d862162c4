import type { Platform } from '../oci/descriptor.ts';
import type { ByteLease } from './byte-budget.ts';
import type { PullPolicy } from '../policy/policy.ts';
import type { Trace } from './trace.ts';
import type { Upstream } from './upstream/upstream.ts';

/** What a pull needs of the registry that the image comes from. */
export type PullUpstream = Pick<
  Upstream,
  | 'name'
  | 'peers'
  | 'outage'
  | 'hasAnswered'
  | 'isBlobOriginDown'
  | 'ask'
  | 'recordBodyFailure'
  | 'recordSaved'
>;

/** What every pull needs to know of the request that it answers. */
export interface PullRequest {
  readonly method: 'GET' | 'HEAD';
  readonly upstream: PullUpstream;
  readonly repository: string;
  /** What is decided ahead for this repository. */
  readonly policy: PullPolicy;
  /** Whom a tag must be complete for to be answered in an outage; this node unless told. */
  readonly platform?: Platform;
  readonly accept: string | undefined;
  readonly range: string | undefined;
  /** The client's credentials, for the upstream alone. */
  readonly authorization: string | undefined;
  readonly userAgent: string | undefined;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly trace: Trace;
  /** Pays for the bytes that are held for its answer; over when the answer is. */
  readonly lease: Pick<ByteLease, 'grow' | 'hold'>;
}

/** The headers that the upstream gets. */
export function upstreamHeaders(
  request: PullRequest,
  more: Readonly<Record<string, string | undefined>> = {},
): Record<string, string> {
  const headers = {
    accept: request.accept,
    authorization: request.authorization,
    'user-agent': request.userAgent,
    ...more,
  };
  return Object.fromEntries(
    Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
