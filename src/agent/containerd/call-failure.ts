import { status, type ServiceError } from '@grpc/grpc-js';

import { StoreUnavailableError } from '../store.ts';

/**
 * What a failed call means to the user of the store: the caller's own reason when it aborted, else
 * that containerd cannot be asked.
 *
 * @param action for the message: "Cannot list the images of containerd"
 */
export function callFailure(
  error: ServiceError,
  action: string,
  signal: AbortSignal | undefined,
): Error {
  if (signal?.aborted === true) return signal.reason as Error;
  return new StoreUnavailableError(`${action}: ${error.details || error.message}`, {
    cause: error,
  });
}

/** Whether a stream failed because there is no such blob. */
export function isMissingBlob(error: unknown): boolean {
  const cause = error instanceof StoreUnavailableError ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause && cause.code === status.NOT_FOUND;
}
