import { parseErrorBody, type OciErrorCode } from '../oci/error-body.ts';
import type { LocateSummary } from '../rpc/agent-client.ts';
import { errorAnswer, type Answer } from './answer.ts';
import { BusyError } from './byte-budget.ts';
import type { Refusal } from './upstream/upstream-answer.ts';
import { UpstreamFailure } from './upstream/upstream-failure.ts';

/** What nobody could give. */
export interface Missing {
  /** "library/nginx:1.25", "sha256:…". */
  readonly what: string;
  readonly unknownCode: Extract<OciErrorCode, 'MANIFEST_UNKNOWN' | 'BLOB_UNKNOWN'>;
  readonly upstream: string;
}

/**
 * The answer when neither the upstream nor a node gives what was asked for. A failing upstream is
 * a 503 that says so, never a 404: that would hide the reason from the user. A rate limit is a 503
 * too, since containerd repeats a 429 at once.
 *
 * @param error what asking the upstream came to
 * @param summary how many nodes were asked; undefined when none were
 */
export function unavailableAnswer(
  missing: Missing,
  error: unknown,
  summary: LocateSummary | undefined,
): Answer {
  if (error instanceof BusyError) return busyAnswer('bytes');
  const failure = UpstreamFailure.from(error, missing.upstream);
  if (failure.kind === 'forbidden_address') {
    return errorAnswer(
      404,
      { code: missing.unknownCode, message: `Cannot fetch ${missing.what}: ${failure.message}` },
      { decision: 'forbidden_address' },
    );
  }
  const message = `Cannot fetch ${missing.what}: ${failure.message}; ${nodesSaid(summary)}`;
  const detail = summary && { asked: summary.asked, failed: summary.failed };
  const limited = failure.kind === 'rate_limited';
  return errorAnswer(
    503,
    { code: limited ? 'TOOMANYREQUESTS' : 'UNAVAILABLE', message, detail: detail ?? {} },
    {
      decision: limited ? 'rate_limited' : 'unavailable',
      ...(failure.retryAfter === undefined
        ? {}
        : { headers: { 'retry-after': failure.retryAfter } }),
    },
  );
}

/**
 * The answer when this process has too much to do: at once, so that a client can go elsewhere.
 *
 * @param of what there is too much of
 */
export function busyAnswer(of: 'requests' | 'bytes'): Answer {
  return errorAnswer(
    503,
    { code: 'UNAVAILABLE', message: `This mirror has too many ${of} in flight` },
    { decision: 'busy', headers: { 'retry-after': '1' } },
  );
}

/** The upstream does not have it and no node has either. */
export function missingAnswer(missing: Missing, refusal: Refusal | undefined): Answer {
  const said = refusal === undefined ? undefined : parseErrorBody(refusal.body)[0]?.message;
  const suffix = said === undefined || said === '' ? '' : `: ${said}`;
  const message = `${missing.upstream} does not have ${missing.what}${suffix}`;
  return errorAnswer(404, { code: missing.unknownCode, message }, { decision: 'missing' });
}

/** The upstream's own refusal, handed on as it is: challenges above all. */
export function refusalAnswer(refusal: Refusal): Answer {
  return {
    status: refusal.status,
    headers: { ...refusal.headers, 'content-length': refusal.body.length },
    body: refusal.body,
    decision: 'refused_upstream',
    source: () => 'upstream',
  };
}

function nodesSaid(summary: LocateSummary | undefined): string {
  if (summary === undefined || summary.asked === 0) return 'no nodes could be asked';
  const silent = summary.failed === 0 ? '' : ` (${summary.failed} gave no answer)`;
  return `${summary.asked} nodes were asked and none can give it${silent}`;
}
