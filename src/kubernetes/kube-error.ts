/** Why the API server gave no answer, or which one it gave. */
export interface KubeErrorDetails {
  /** HTTP status, or the code of a Status object; undefined when there was no answer. */
  readonly status?: number | undefined;
  /** The API server's word for it, such as Expired or NotFound. */
  readonly reason?: string | undefined;
  /** How long it asks to be left alone, milliseconds. */
  readonly retryAfterMs?: number | undefined;
}

/** A call to the Kubernetes API that failed. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly status: number | undefined;
  readonly reason: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(message: string, details: KubeErrorDetails & ErrorOptions = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
  }

  /** The version that was asked for is no longer known: only a new list helps. */
  get isGone(): boolean {
    return this.status === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }
}
