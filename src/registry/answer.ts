import { ociErrorAnswer, type OciError, type WireAnswer } from '../http/wire-answer.ts';

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
