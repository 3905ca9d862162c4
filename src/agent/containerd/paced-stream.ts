import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';

import { StoreUnavailableError } from '../store.ts';
import type { StoreCallOptions } from '../store.ts';
import { callFailure } from './call-failure.ts';
import type { OneByOne } from './one-by-one.ts';

export interface StreamLimits extends StoreCallOptions {
  /** What was tried, for the message of an error. */
  readonly action: string;
  /** How long the next message may take, in milliseconds; Infinity: any time. */
  readonly timeoutMs: number;
}

/**
 * The messages of a server stream, fetched as they are asked for. Each has a deadline of its own,
 * so that a reader may be slow and containerd may not.
 *
 * Iteration throws a StoreUnavailableError when the stream breaks.
 */
export class PacedStream<T> implements AsyncIterableIterator<T> {
  readonly #call: ClientReadableStream<T>;
  readonly #iterator: AsyncIterator<T>;
  readonly #pace: OneByOne;
  readonly #limits: StreamLimits;

  constructor(call: ClientReadableStream<T>, pace: OneByOne, limits: StreamLimits) {
    this.#call = call;
    this.#pace = pace;
    this.#limits = limits;
    // A cancelled stream that nobody reads any more still reports its cancellation.
    call.on('error', () => undefined);
    this.#iterator = call[Symbol.asyncIterator]() as AsyncIterator<T>;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T>> {
    const { signal, action, timeoutMs } = this.#limits;
    if (signal?.aborted === true) {
      this.cancel();
      throw signal.reason;
    }
    const timer = timeoutMs === Infinity ? undefined : setTimeout(() => this.#giveUp(), timeoutMs);
    const abort = (): void => this.#call.cancel();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const result = await this.#iterator.next();
      this.#pace.taken();
      return result.done === true ? { done: true, value: undefined } : result;
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw error;
      throw callFailure(error as ServiceError, action, signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  async return(): Promise<IteratorResult<T>> {
    this.cancel();
    return { done: true, value: undefined };
  }

  #giveUp(): void {
    const { action, timeoutMs } = this.#limits;
    const silence = new StoreUnavailableError(`${action}: no answer within ${timeoutMs} ms`);
    this.#call.destroy(silence);
    this.#call.cancel();
  }

  /** Ends the stream at the server as well. Harmless when it has ended already. */
  cancel(): void {
    this.#call.cancel();
  }
}
