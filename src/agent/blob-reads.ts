import { status } from '@grpc/grpc-js';
import { safeNumber } from '../rpc/agent-protocol.ts';
import type { ReadRequest } from '../rpc/gen/salvor/agent/v1/agent_pb.ts';
import type { AgentMetrics } from './agent-metrics.ts';
import { sendBlob, type FrameSink } from './blob-sender.ts';
import type { HeldContent } from './held-content.ts';
import { requestedDigest } from './requested-digest.ts';
import { RpcFailure } from './rpc-failure.ts';

export interface BlobReadOptions {
  /** How many blobs may be read at once. */
  readonly maxReaders: number;
  /** Bytes of a blob that are sent at a time. */
  readonly chunkBytes: number;
  /** A reader that takes nothing for this long loses its place, milliseconds. */
  readonly readerStallMs: number;
}

/** How many blobs are being read, over all the servers of one agent. */
export interface ReaderCount {
  count: number;
}

/** Sends blobs to other nodes, so many at a time, whatever they came for them by. */
export class BlobReads {
  readonly #options: BlobReadOptions;
  readonly #content: HeldContent;
  readonly #metrics: AgentMetrics;
  readonly #readers: ReaderCount;

  constructor(
    options: BlobReadOptions,
    dependencies: { content: HeldContent; metrics: AgentMetrics; readers: ReaderCount },
  ) {
    this.#options = options;
    this.#content = dependencies.content;
    this.#metrics = dependencies.metrics;
    this.#readers = dependencies.readers;
  }

  /** Whether all places are taken. */
  get isBusy(): boolean {
    return this.#readers.count >= this.#options.maxReaders;
  }

  /**
   * Sends what was asked for, at the pace of whoever asked.
   *
   * @throws RpcFailure when it cannot, or can no longer
   */
  async send(request: ReadRequest, sink: FrameSink, signal: AbortSignal): Promise<void> {
    const part = {
      offsetBytes: positionOf(request.offsetBytes),
      lengthBytes: positionOf(request.lengthBytes),
    };
    if (this.isBusy) throw new RpcFailure(status.RESOURCE_EXHAUSTED, 'too many readers');
    this.#readers.count += 1;
    this.#metrics.readers.inc();
    try {
      const opened = await this.#content.open(requestedDigest(request.digest), { signal });
      if (opened === undefined) throw new RpcFailure(status.NOT_FOUND, 'not held');
      try {
        const { chunkBytes, readerStallMs: stallMs } = this.#options;
        const sent = await sendBlob(sink, opened, { ...part, chunkBytes, stallMs, signal });
        this.#metrics.bytesSent.inc(sent);
      } finally {
        await opened.blob.close();
      }
    } finally {
      this.#readers.count -= 1;
      this.#metrics.readers.dec();
    }
  }
}

function positionOf(value: bigint): number {
  try {
    return safeNumber(value);
  } catch (error) {
    throw new RpcFailure(status.INVALID_ARGUMENT, 'a position out of range', { cause: error });
  }
}
