import { create } from '@bufbuild/protobuf';
import type { Digest } from '../oci/digest.ts';
import type { CallLimits } from './agent-channel.ts';
import { AgentError } from './agent-error.ts';
import { safeNumber } from './agent-protocol.ts';
import type { BlobConnection } from './blob-connection.ts';
import { encodeBlobRequest } from './blob-protocol.ts';
import { ReadRequestSchema, type BlobAnswer } from './gen/salvor/agent/v1/agent_pb.ts';
import type { ReadFrame } from './read-frame.ts';

/** A part of a blob. */
export interface BlobReadRequest {
  readonly digest: Digest;
  readonly offsetBytes: number;
  /** Zero: to the end. */
  readonly lengthBytes: number;
}

/** Where connections come from and go to. */
export interface BlobConnections {
  /** One that was used before. */
  take(): BlobConnection | undefined;
  /** @returns false when the agent knows no connections for blobs */
  dial(onDialled: (connection: BlobConnection) => void): Promise<boolean>;
  keep(connection: BlobConnection): void;
}

/** The agent knows no connections for blobs: it is to be asked by a call. */
export class OlderAgentError extends Error {
  override readonly name = 'OlderAgentError';
}

const NO_BYTES = Buffer.alloc(0);

/**
 * One read of a blob over a connection of its own. Can be iterated once; the iteration throws an
 * AgentError when the bytes break off, and an {@link OlderAgentError} before it has begun.
 */
export class BlobRead implements AsyncIterable<ReadFrame> {
  readonly #request: BlobReadRequest & { readonly node: string };
  readonly #connections: BlobConnections;
  readonly #signal: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #onAbort = (): void => this.cancel();
  #connection: BlobConnection | undefined;
  /** Why it was ended from here. */
  #reason: AgentError | undefined;
  #isSettled = false;

  constructor(
    request: BlobReadRequest & { readonly node: string },
    { signal, timeoutMs }: CallLimits,
    connections: BlobConnections,
  ) {
    this.#request = request;
    this.#connections = connections;
    this.#signal = signal;
    if (signal?.aborted === true) this.cancel();
    else signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (timeoutMs !== undefined && !this.#isSettled) {
      this.#timer = setTimeout(() => {
        this.#stop(new AgentError('deadline', `${this.#action}: not within ${timeoutMs} ms`));
      }, timeoutMs);
    }
  }

  /** Ends it, at the sender too. Harmless when it has ended already. */
  cancel(): void {
    this.#stop(new AgentError('cancelled', `${this.#action}: cancelled`));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ReadFrame> {
    try {
      const answer = await this.#ask();
      const sizeBytes = safeNumber(answer.sizeBytes);
      let leftBytes = partLength(this.#request, sizeBytes);
      const next = async (): Promise<Buffer> => {
        const data = leftBytes === 0 ? NO_BYTES : await this.#next(leftBytes);
        leftBytes -= data.length;
        // Whoever has all bytes may not come back for more.
        if (leftBytes === 0) this.#settle({ isUsable: true });
        return data;
      };
      yield { data: await next(), sizeBytes, verified: answer.verified };
      while (leftBytes > 0) yield { data: await next() };
    } catch (error) {
      throw this.#reason ?? this.#describe(error);
    } finally {
      this.#settle({ isUsable: false });
    }
  }

  get #action(): string {
    return `Cannot read ${this.#request.digest} from ${this.#request.node}`;
  }

  #describe(error: unknown): Error {
    if (error instanceof AgentError || error instanceof OlderAgentError) return error;
    const reason = error instanceof Error ? error.message : String(error);
    return new AgentError('unavailable', `${this.#action}: ${reason}`, { cause: error });
  }

  async #ask(): Promise<BlobAnswer> {
    const { digest, offsetBytes, lengthBytes } = this.#request;
    const request = encodeBlobRequest(
      create(ReadRequestSchema, {
        digest,
        offsetBytes: BigInt(offsetBytes),
        lengthBytes: BigInt(lengthBytes),
      }),
    );
    for (;;) {
      this.#throwIfStopped();
      this.#connection = this.#connections.take();
      const isUsed = this.#connection !== undefined;
      const connection = this.#connection ?? (await this.#dial());
      connection.send(request);
      const answer = await connection.answer().catch((error: unknown) => {
        if (!isUsed) throw error;
        return undefined;
      });
      this.#throwIfStopped();
      if (answer === undefined) {
        connection.destroy();
        // The agent ended what it took for idle, just now.
        if (isUsed) continue;
        throw new Error('the agent ended the connection');
      }
      if (answer.code !== 0) {
        this.#settle({ isUsable: true });
        throw AgentError.from({ code: answer.code, details: answer.message }, this.#action);
      }
      return answer;
    }
  }

  async #dial(): Promise<BlobConnection> {
    const isDialled = await this.#connections.dial((connection) => {
      this.#connection = connection;
    });
    this.#throwIfStopped();
    if (isDialled && this.#connection !== undefined) return this.#connection;
    throw new OlderAgentError(`${this.#action}: its agent sends blobs by calls alone`);
  }

  async #next(leftBytes: number): Promise<Buffer> {
    const data = await this.#connection?.next();
    this.#throwIfStopped();
    if (data === undefined) throw new Error(`it broke off ${leftBytes} bytes before the end`);
    if (data.length > leftBytes) throw new Error('it sent more than it was asked for');
    return data;
  }

  #throwIfStopped(): void {
    if (this.#reason !== undefined) throw this.#reason;
  }

  #stop(reason: AgentError): void {
    if (this.#isSettled) return;
    this.#reason = reason;
    this.#settle({ isUsable: false });
  }

  #settle({ isUsable }: { readonly isUsable: boolean }): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#onAbort);
    if (this.#connection === undefined) return;
    if (isUsable) this.#connections.keep(this.#connection);
    else this.#connection.destroy();
  }
}

function partLength({ offsetBytes, lengthBytes }: BlobReadRequest, sizeBytes: number): number {
  const end = lengthBytes === 0 ? sizeBytes : Math.min(sizeBytes, offsetBytes + lengthBytes);
  return Math.max(0, end - offsetBytes);
}
