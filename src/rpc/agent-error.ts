import { status, type ServiceError } from '@grpc/grpc-js';

/** Why a call to an agent gave no answer, in the few kinds that callers treat differently. */
export type AgentErrorKind =
  | 'cancelled'
  | 'deadline'
  | 'unavailable'
  | 'not_held'
  | 'busy'
  | 'refused'
  | 'invalid'
  | 'unimplemented'
  | 'other';

/** A failed call to an agent. */
export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly kind: AgentErrorKind;

  constructor(kind: AgentErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }

  /**
   * The one door through which foreign errors enter.
   *
   * @param action what was being done, as in "Cannot read sha256:… from node-3"
   */
  static from(error: unknown, action: string): AgentError {
    if (error instanceof AgentError) return error;
    const code = (error as Partial<ServiceError>).code;
    const kind = typeof code === 'number' ? KIND_OF_STATUS[code] : undefined;
    const details = (error as Partial<ServiceError>).details ?? String(error);
    return new AgentError(kind ?? 'other', `${action}: ${details}`, { cause: error });
  }
}

const KIND_OF_STATUS: Readonly<Partial<Record<number, AgentErrorKind>>> = {
  [status.CANCELLED]: 'cancelled',
  [status.DEADLINE_EXCEEDED]: 'deadline',
  [status.UNAVAILABLE]: 'unavailable',
  [status.NOT_FOUND]: 'not_held',
  [status.RESOURCE_EXHAUSTED]: 'busy',
  [status.PERMISSION_DENIED]: 'refused',
  [status.UNAUTHENTICATED]: 'refused',
  [status.INVALID_ARGUMENT]: 'invalid',
  [status.OUT_OF_RANGE]: 'invalid',
  // What an agent does not know was added to the protocol after it was made.
  [status.UNIMPLEMENTED]: 'unimplemented',
};
