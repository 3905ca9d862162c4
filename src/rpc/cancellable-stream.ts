import type { ClientReadableStream } from '@grpc/grpc-js';
import { AgentError } from './agent-error.ts';

/**
 * What an agent streams, pulled one message at a time. Ends at the sender, too, when it is
 * cancelled, left early, or the signal aborts; the iteration throws an AgentError when it breaks.
 */
export class CancellableStream<T> implements AsyncIterable<T> {
  readonly #call: ClientReadableStream<T>;
  readonly #action: string;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.cancel();

  /** @param action what was being done, for the message of an error */
  constructor(call: ClientReadableStream<T>, action: string, signal?: AbortSignal) {
    this.#call = call;
    this.#action = action;
    this.#signal = signal;
    readAhead(call, 1);
    // A stream that is cancelled before anyone iterates it must not raise an unhandled error.
    call.on('error', () => undefined);
    if (signal?.aborted === true) call.cancel();
    else signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Ends it. Harmless when it has ended already. */
  cancel(): void {
    this.#signal?.removeEventListener('abort', this.#abort);
    this.#call.cancel();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    try {
      for await (const message of this.#call) yield message as T;
    } catch (error) {
      throw AgentError.from(error, this.#action);
    } finally {
      this.cancel();
    }
  }
}

/**
 * Bounds how many messages are kept for a reader that is slow to take them. grpc-js leaves it at
 * sixteen, some megabytes of a blob, and has no option for it.
 */
function readAhead(call: ClientReadableStream<unknown>, messages: number): void {
  const { _readableState: state } = call as unknown as {
    _readableState: { highWaterMark: number };
  };
  state.highWaterMark = messages;
}
