import { createHash } from 'node:crypto';
import type { PullPolicy } from './policy.ts';
import type { Trace } from './trace.ts';
import type { Upstream } from './upstream/upstream.ts';

/** What every pull needs to know of the request that it answers. */
export interface PullRequest {
  readonly method: 'GET' | 'HEAD';
  readonly upstream: Upstream;
  readonly repository: string;
  /** What is decided ahead for this repository. */
  readonly policy: PullPolicy;
  readonly accept: string | undefined;
  readonly range: string | undefined;
  /** The client's credentials, for the upstream alone. */
  readonly authorization: string | undefined;
  readonly userAgent: string | undefined;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly trace: Trace;
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

/**
 * Stands for a request's credentials in keys of caches, without being them.
 *
 * @param salt of this process, so that the value means nothing elsewhere
 */
export function credentialsFingerprint(authorization: string | undefined, salt: Buffer): string {
  if (authorization === undefined) return 'anonymous';
  return createHash('sha256').update(salt).update(authorization).digest('base64url');
}
