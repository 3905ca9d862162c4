import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';

import { StoreUnavailableError } from '../store.ts';
import { callFailure } from './call-failure.ts';
import type { StreamLimits } from './paced-stream.ts';

/**
 * A bidirectional stream in which both sides take turns: one message out, one message back. Each
 * turn has a deadline of its own.
 */
export class TurnStream<Request, Response> {
  readonly #call: ClientDuplexStream<Request, Response>;
  readonly #limits: StreamLimits;
  #failure: ServiceError | undefined;

  constructor(call: ClientDuplexStream<Request, Response>, limits: StreamLimits) {
    this.#call = call;
    this.#limits = limits;
    // A failure between two turns is the next turn's answer.
    call.on('error', (error: ServiceError) => (this.#failure ??= error));
  }

  /**
   * Sends a message and waits for its answer.
   *
   * @throws StoreUnavailableError when the stream breaks or the answer does not come in time, the
   *   reason of its signal when that aborts; the stream has ended then
   */
  async turn(request: Request): Promise<Response> {
    const { signal, action, timeoutMs } = this.#limits;
    if (signal?.aborted === true) {
      this.cancel();
      throw signal.reason;
    }
    if (this.#failure !== undefined) throw callFailure(this.#failure, action, signal);
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    const call = this.#call;
    const fail = (error: ServiceError): void => reject(callFailure(error, action, signal));
    const end = (): void => {
      if (this.#failure === undefined) {
        reject(new StoreUnavailableError(`${action}: containerd ended the call`));
      }
    };
    const abort = (): void => call.cancel();
    const timer = setTimeout(() => {
      reject(new StoreUnavailableError(`${action}: no answer within ${timeoutMs} ms`));
      call.cancel();
    }, timeoutMs);
    call.once('data', resolve);
    call.once('error', fail);
    // An error status comes before it.
    call.once('end', end);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      call.write(request);
      return await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      call.off('data', resolve).off('error', fail).off('end', end);
    }
  }

  /**
   * Says that nothing more comes, and waits until the server has let go of what it held, or does
   * not say so in time. Never throws.
   */
  async finish(): Promise<void> {
    const { signal, timeoutMs } = this.#limits;
    const call = this.#call;
    if (this.#failure !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const done = (): void => resolve(undefined);
    const abort = (): void => call.cancel();
    const timer = setTimeout(abort, timeoutMs);
    call.once('end', done);
    call.once('error', done);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted === true) abort();
    call.end();
    // An end that nobody reads is never told.
    call.resume();
    await promise;
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }

  /** Ends the stream at the server as well. Harmless when it has ended already. */
  cancel(): void {
    this.#call.cancel();
  }
}
