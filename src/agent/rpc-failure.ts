import { status } from '@grpc/grpc-js';
import { StoreUnavailableError } from './store.ts';

/** A call's failure with the status that its caller shall see. */
export class RpcFailure extends Error {
  override readonly name = 'RpcFailure';
  readonly code: status;
  readonly details: string;

  constructor(code: status, details: string, options?: ErrorOptions) {
    super(details, options);
    this.code = code;
    this.details = details;
  }

  /** The one door through which a handler's errors become a status. */
  static from(error: unknown): RpcFailure {
    if (error instanceof RpcFailure) return error;
    if (error instanceof StoreUnavailableError) {
      return new RpcFailure(status.UNAVAILABLE, error.message, { cause: error });
    }
    // What went wrong inside is for this node's log, not for other nodes.
    return new RpcFailure(status.INTERNAL, 'internal error', { cause: error });
  }
}
