import { ociErrorAnswer, type OciError, type WireAnswer } from '../http/wire-answer.ts';
import { VERSION_HEADER } from '../oci/version-header.ts';

/** How a body ended that its client did not get in full. */
export type RelayEnd = 'complete' | 'cut' | 'wrong_bytes';

/** A body that is still being made. */
export interface BodyStream {
  readonly chunks: AsyncIterable<Buffer>;
  /** Called by whoever sends the body, when it can be sent no further. */
  cancel(): void;
}

/** Why a client got what it got, in a word: for the log and the metrics. */
export type AnswerDecision =
  | 'upstream'
  | 'peer'
  | 'memory'
  | 'offline_tag'
  | 'refused_upstream'
  | 'missing'
  | 'unavailable'
  | 'rate_limited'
  | 'forbidden_address'
  | 'busy'
  | 'bypass'
  | 'not_allowed'
  | 'unsupported'
  | 'bad_request'
  | 'bad_range'
  | 'bad_method'
  | 'unreadable'
  | 'base'
  | 'self_test';

/** What a client gets: status, headers and a body, which HEAD leaves out. */
export interface Answer extends WireAnswer {
  readonly body?: Buffer | BodyStream;
  /** For the log line: who served it. */
  readonly source?: () => string;
  /** For the log line: why, in a word. */
  readonly decision: AnswerDecision;
  /** What the client is told, where it is an error of this mirror's own. */
  readonly error?: string;
}

/** An error as the distribution specification wants it. */
export function errorAnswer(
  status: number,
  error: OciError,
  options: {
    readonly decision: AnswerDecision;
    readonly headers?: Readonly<Record<string, string | string[]>>;
  },
): Answer {
  const { decision, headers } = options;
  return { ...ociErrorAnswer(status, error, headers), decision, error: error.message };
}

/** To whoever wants to change something. */
export function badMethodAnswer(): Answer {
  return errorAnswer(
    405,
    { code: 'UNSUPPORTED', message: 'This registry is a mirror: it can only be read' },
    { decision: 'bad_method', headers: { allow: 'GET, HEAD' } },
  );
}

/** To `GET /v2/`, which asks whether this is a registry: distribution specification, end-1. */
export function baseAnswer(version = 'unknown'): Answer {
  const body = Buffer.from('{}');
  return {
    status: 200,
    headers: {
      'content-type': 'application/json',
      'content-length': body.length,
      [VERSION_HEADER]: version,
    },
    body,
    decision: 'base',
  };
}

/** Lets the sources of an answer go that is not sent, or no further. */
export function stopAnswer({ body }: Answer): void {
  if (body !== undefined && !Buffer.isBuffer(body)) body.cancel();
}
