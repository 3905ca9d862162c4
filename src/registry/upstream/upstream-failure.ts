import { ForbiddenAddressError } from '../../policy/address-guard.ts';
import {
  failureKind,
  failureMessage,
  OUTAGE_SIGNS,
  type UpstreamFailureKind,
} from './failure-kind.ts';
import { ProxyError } from './proxy.ts';

export type { UpstreamFailureKind } from './failure-kind.ts';

const outageSigns: ReadonlySet<UpstreamFailureKind> = new Set(OUTAGE_SIGNS);

/** The upstream could not be asked, or answered with nothing that helps. */
export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure';
  readonly kind: UpstreamFailureKind;
  /** Where the failure is an answer with a status. */
  readonly status: number | undefined;
  /** The upstream's Retry-After, verbatim. */
  readonly retryAfter: string | undefined;
  /** "host:port" that failed, where that is known: the registry itself, or where it redirects. */
  readonly origin: string | undefined;
  /**
   * The upstream is proven not to answer this request: two failures on separate connections, some
   * time apart, and nobody else got an answer from it meanwhile.
   */
  readonly isProven: boolean;

  constructor(
    kind: UpstreamFailureKind,
    message: string,
    options: ErrorOptions & {
      readonly status?: number | undefined;
      readonly retryAfter?: string | undefined;
      readonly origin?: string | undefined;
      readonly isProven?: boolean;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = kind;
    this.status = options.status;
    this.retryAfter = options.retryAfter;
    this.origin = options.origin;
    this.isProven = options.isProven ?? false;
  }

  /** Whether it says something about the upstream being down, rather than about one request. */
  get isOutageSign(): boolean {
    return outageSigns.has(this.kind);
  }

  /** The same failure, as the proof that it has become. */
  proven(): UpstreamFailure {
    const { cause, status, retryAfter, origin } = this;
    const options = { cause, status, retryAfter, origin, isProven: true };
    return new UpstreamFailure(this.kind, this.message, options);
  }

  /**
   * The one door through which errors of the HTTP client enter.
   *
   * @param host for the message
   * @param signal of the request: only if it has aborted is a request called cancelled; without it
   *   whatever aborted is taken for ours
   */
  static from(error: unknown, host: string, signal?: AbortSignal): UpstreamFailure {
    if (error instanceof UpstreamFailure) return error;
    if (error instanceof ForbiddenAddressError) {
      return new UpstreamFailure('forbidden_address', error.message, { cause: error });
    }
    const kind = failureKind(error, signal);
    return new UpstreamFailure(kind, failureMessage(error, kind, host), {
      cause: error,
      origin: host,
      status: error instanceof ProxyError ? error.status : undefined,
    });
  }
}
