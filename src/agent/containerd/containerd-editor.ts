import { status } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';

import type { Digest } from '../../oci/digest.ts';
import {
  Content,
  DeleteContentRequestSchema,
  InfoRequestSchema,
  UpdateRequestSchema,
} from '../../rpc/gen/containerd/services/content/v1/content_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import type { StoreCallOptions } from '../store.ts';
import type { ContainerdConnection } from './containerd-connection.ts';
import { writeContent, type ContentWrite, type ContentWriteLimits } from './content-write.ts';

/** The labels of a blob, by key. */
export type Labels = Readonly<Record<string, string>>;

export interface LabelChange {
  readonly set?: Labels;
  readonly remove?: readonly string[];
}

const methods = {
  info: methodDefinition(Content.method.info),
  update: methodDefinition(Content.method.update),
  delete: methodDefinition(Content.method.delete),
};

/**
 * Changes the content of one of containerd's namespaces.
 *
 * What containerd does not find becomes undefined or false. Every other failure is a
 * StoreUnavailableError, except that a caller's own abort keeps its reason.
 */
export class ContainerdEditor {
  readonly #connection: ContainerdConnection;

  constructor(connection: ContainerdConnection) {
    this.#connection = connection;
  }

  /** @returns undefined when there is no such blob */
  async labels(digest: Digest, options: StoreCallOptions = {}): Promise<Labels | undefined> {
    const request = create(InfoRequestSchema, { digest });
    const answer = await this.#connection.unary(methods.info, request, {
      ...options,
      action: `Cannot read the labels of ${digest}`,
      missing: [status.NOT_FOUND],
    });
    return answer === undefined ? undefined : (answer.info?.labels ?? {});
  }

  /**
   * Changes some labels of a blob in one step and leaves the others alone. Garbage collection
   * follows what the labels say then.
   *
   * @returns whether there is such a blob
   */
  async updateLabels(
    digest: Digest,
    { set = {}, remove = [], ...options }: LabelChange & StoreCallOptions,
  ): Promise<boolean> {
    // An empty value is how containerd is told that a label goes.
    const gone = Object.fromEntries(remove.map((key) => [key, '']));
    const labels = { ...gone, ...set };
    const paths = Object.keys(labels).map((key) => `labels.${key}`);
    if (paths.length === 0) return (await this.labels(digest, options)) !== undefined;
    const request = create(UpdateRequestSchema, {
      info: { digest, labels },
      updateMask: { paths },
    });
    const answer = await this.#connection.unary(methods.update, request, {
      ...options,
      action: `Cannot change the labels of ${digest}`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /**
   * Takes a blob out of the namespace, whatever refers to it. Its file goes with the next garbage
   * collection, if no other namespace has it.
   *
   * @returns whether there was such a blob
   */
  async deleteContent(digest: Digest, options: StoreCallOptions = {}): Promise<boolean> {
    const request = create(DeleteContentRequestSchema, { digest });
    const answer = await this.#connection.unary(methods.delete, request, {
      ...options,
      action: `Cannot delete ${digest} from containerd`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /**
   * Writes a blob, going on where an earlier write of the same ref ended.
   *
   * @param chunks gives the bytes from an offset to the end
   * @returns "present" when containerd had the blob already
   * @throws IngestBusyError when somebody else writes under this ref, WrongContentError when the
   *   bytes are not those of the digest, what `chunks` throws, StoreUnavailableError, or the reason
   *   of the signal. What has been written stays for the next try, unless it is wrong
   */
  write(
    write: ContentWrite,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
    limits: ContentWriteLimits = {},
  ): Promise<'written' | 'present'> {
    return writeContent(this.#connection, { ...write, chunks }, limits);
  }
}
