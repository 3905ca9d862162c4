import { status } from '@grpc/grpc-js';
import { create, type MessageInitShape } from '@bufbuild/protobuf';

import type { Digest } from '../../oci/digest.ts';
import {
  AbortRequestSchema,
  Content,
  WriteContentRequestSchema,
  type WriteContentRequest,
  type WriteContentResponse,
} from '../../rpc/gen/containerd/services/content/v1/content_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import { StoreUnavailableError, type StoreCallOptions } from '../store.ts';
import type { ContainerdConnection } from './containerd-connection.ts';
import type { TurnStream } from './turn-stream.ts';

/** What is written, and how containerd shall keep it. */
export interface ContentWrite {
  /** The name of the write while it is under way; a later write of the same name goes on. */
  readonly ref: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Of the committed blob. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Holds the write and then the blob; without any, garbage collection looks at its labels. */
  readonly leaseId?: string;
  /**
   * Takes away a blob of that digest which is there already, once the bytes of the new one have
   * all come. Without it such a blob ends the write at once.
   */
  readonly replace?: () => Promise<void>;
}

export interface ContentWriteLimits extends StoreCallOptions {
  /** How long containerd may take for one message, in milliseconds. */
  readonly timeoutMs?: number;
}

/** Somebody else writes under this ref at this moment. */
export class IngestBusyError extends Error {
  override readonly name = 'IngestBusyError';
}

/** The bytes are not those of the digest; nothing of them is kept. */
export class WrongContentError extends Error {
  override readonly name = 'WrongContentError';
}

type Turns = TurnStream<WriteContentRequest, WriteContentResponse>;
type Chunks = (offsetBytes: number) => AsyncIterable<Uint8Array>;

const methods = {
  write: methodDefinition(Content.method.write),
  abort: methodDefinition(Content.method.abort),
};
const statAction = 0;
const writeAction = 1;
const commitAction = 2;
/** containerd takes messages of 16 MiB at most. */
const maxMessageBytes = 4 * 1024 * 1024;

/** As ContainerdEditor.write says. */
export async function writeContent(
  connection: ContainerdConnection,
  write: ContentWrite & { readonly chunks: Chunks },
  limits: ContentWriteLimits,
): Promise<'written' | 'present'> {
  const { digest, ref, leaseId } = write;
  const action = `Cannot write ${digest} to containerd`;
  const turns: Turns = connection.turnStream(methods.write, { ...limits, action, leaseId });
  try {
    await run(turns, write);
    await turns.finish();
    return 'written';
  } catch (error) {
    // Only then can the next try have the ref.
    await turns.finish();
    if (codeOf(error) === status.ALREADY_EXISTS) return 'present';
    // containerd says so at the commit; what it has would be committed again by the next try.
    const wrong =
      error instanceof WrongContentError || codeOf(error) === status.FAILED_PRECONDITION;
    if (!wrong) throw error;
    await connection.unary(methods.abort, create(AbortRequestSchema, { ref }), {
      action: `Cannot abort the write ${ref} in containerd`,
      missing: [status.NOT_FOUND],
    });
    throw error instanceof WrongContentError
      ? error
      : new WrongContentError(`${action}: the bytes are not those of the digest`, { cause: error });
  }
}

async function run(turns: Turns, write: ContentWrite & { readonly chunks: Chunks }): Promise<void> {
  const { digest, ref, sizeBytes, labels = {}, chunks, replace } = write;
  const message = (
    action: number,
    more: MessageInitShape<typeof WriteContentRequestSchema> = {},
  ): WriteContentRequest =>
    create(WriteContentRequestSchema, {
      action,
      ref,
      // Of a digest that it knows, containerd takes no bytes.
      expected: replace === undefined ? digest : '',
      total: BigInt(sizeBytes),
      ...more,
    });
  let offsetBytes = await begin(turns, message(statAction), digest);
  // A longer one cannot be the beginning of this blob: the first byte written cuts it off.
  if (offsetBytes > sizeBytes) offsetBytes = 0;
  if (offsetBytes < sizeBytes) {
    for await (const chunk of chunks(offsetBytes)) {
      if (offsetBytes + chunk.byteLength > sizeBytes) {
        throw new WrongContentError(
          `Cannot write ${digest} to containerd: there are more than ${sizeBytes} bytes`,
        );
      }
      for (const data of inMessages(chunk)) {
        await turns.turn(message(writeAction, { offset: BigInt(offsetBytes), data }));
        offsetBytes += data.byteLength;
      }
    }
  }
  if (offsetBytes < sizeBytes) {
    throw new Error(
      `Cannot write ${digest} to containerd: the bytes ended at ${offsetBytes} of ${sizeBytes}`,
    );
  }
  await replace?.();
  await turns.turn(
    message(commitAction, {
      offset: BigInt(offsetBytes),
      expected: digest,
      labels: { ...labels },
    }),
  );
}

/** @returns how much of the blob containerd has from an earlier write, in bytes */
async function begin(turns: Turns, stat: WriteContentRequest, digest: Digest): Promise<number> {
  try {
    return Number((await turns.turn(stat)).offset);
  } catch (error) {
    // The same code says that containerd is away, but then there is nobody to know of a lock.
    if (codeOf(error) !== status.UNAVAILABLE || !/\blocked\b/.test((error as Error).message)) {
      throw error;
    }
    throw new IngestBusyError(
      `Cannot write ${digest} to containerd: somebody else writes ${stat.ref}`,
      { cause: error },
    );
  }
}

function* inMessages(chunk: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < chunk.byteLength; start += maxMessageBytes) {
    yield chunk.subarray(start, start + maxMessageBytes);
  }
}

function codeOf(error: unknown): unknown {
  const cause = error instanceof StoreUnavailableError ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause ? cause.code : undefined;
}
