import {
  Client,
  Metadata,
  credentials,
  status,
  type CallOptions,
  type MethodDefinition,
} from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { EmptySchema } from '@bufbuild/protobuf/wkt';

import type { Digest } from '../../oci/digest.ts';
import {
  AbortRequestSchema,
  Content,
  InfoRequestSchema,
  ListContentRequestSchema,
  ListStatusesRequestSchema,
  ReadContentRequestSchema,
  type Info,
  type ReadContentResponse,
  type Status,
} from '../../rpc/gen/containerd/services/content/v1/content_pb.ts';
import {
  GetImageRequestSchema,
  Images,
  ListImagesRequestSchema,
  type Image,
} from '../../rpc/gen/containerd/services/images/v1/images_pb.ts';
import {
  Introspection,
  PluginsRequestSchema,
} from '../../rpc/gen/containerd/services/introspection/v1/introspection_pb.ts';
import { Version } from '../../rpc/gen/containerd/services/version/v1/version_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import type { StoreCallOptions } from '../store.ts';
import { callFailure } from './call-failure.ts';
import { OneByOne } from './one-by-one.ts';
import { PacedStream } from './paced-stream.ts';

export interface ContainerdClientOptions {
  readonly socketPath: string;
  readonly namespace: string;
  /** How long one answer may take, in milliseconds. */
  readonly callTimeoutMs: number;
  /** How long a list, or the next message of a stream, may take, in milliseconds. */
  readonly listTimeoutMs: number;
}

const maxReceiveBytes = 32 * 1024 * 1024;
const methods = {
  getImage: methodDefinition(Images.method.get),
  listImages: methodDefinition(Images.method.list),
  info: methodDefinition(Content.method.info),
  list: methodDefinition(Content.method.list),
  read: methodDefinition(Content.method.read),
  listStatuses: methodDefinition(Content.method.listStatuses),
  abort: methodDefinition(Content.method.abort),
  plugins: methodDefinition(Introspection.method.plugins),
  version: methodDefinition(Version.method.version),
};

/**
 * Calls containerd in one namespace. The connection is made when first needed and again whenever
 * containerd comes back; while it is away every call fails at once.
 *
 * What containerd does not find becomes undefined, where that can be. Every other failure is a
 * StoreUnavailableError, except that a caller's own abort keeps its reason.
 */
export class ContainerdClient {
  readonly #client: Client;
  readonly #metadata = new Metadata();
  readonly #callTimeoutMs: number;
  readonly #listTimeoutMs: number;

  constructor(options: ContainerdClientOptions) {
    this.#callTimeoutMs = options.callTimeoutMs;
    this.#listTimeoutMs = options.listTimeoutMs;
    this.#metadata.set('containerd-namespace', options.namespace);
    this.#client = new Client(`unix:${options.socketPath}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': maxReceiveBytes,
      'grpc.enable_retries': 0,
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
    });
  }

  async image(name: string, options: StoreCallOptions): Promise<Image | undefined> {
    const request = create(GetImageRequestSchema, { name });
    const answer = await this.#unary(methods.getImage, request, {
      ...options,
      action: `Cannot ask containerd for ${name}`,
      missing: [status.NOT_FOUND, status.INVALID_ARGUMENT],
    });
    return answer?.image;
  }

  async images(options: StoreCallOptions): Promise<Image[]> {
    const answer = await this.#unary(methods.listImages, create(ListImagesRequestSchema), {
      ...options,
      timeoutMs: this.#listTimeoutMs,
      action: 'Cannot list the images of containerd',
    });
    return answer?.images ?? [];
  }

  async info(digest: Digest, options: StoreCallOptions): Promise<Info | undefined> {
    const answer = await this.#unary(methods.info, create(InfoRequestSchema, { digest }), {
      ...options,
      action: `Cannot ask containerd for ${digest}`,
      missing: [status.NOT_FOUND],
    });
    return answer?.info;
  }

  async *content(options: StoreCallOptions): AsyncGenerator<Info> {
    const stream = this.#serverStream(methods.list, create(ListContentRequestSchema), {
      ...options,
      action: 'Cannot list the content of containerd',
    });
    for await (const message of stream) yield* message.info;
  }

  /** The bytes of a blob from an offset to its end. containerd keeps the file open meanwhile. */
  read(
    digest: Digest,
    offsetBytes: number,
    options: StoreCallOptions = {},
  ): PacedStream<ReadContentResponse> {
    const request = create(ReadContentRequestSchema, { digest, offset: BigInt(offsetBytes) });
    return this.#serverStream(methods.read, request, {
      ...options,
      action: `Cannot read ${digest} from containerd`,
    });
  }

  /** The blobs that are being written. */
  async ingests(options: StoreCallOptions): Promise<Status[]> {
    const answer = await this.#unary(methods.listStatuses, create(ListStatusesRequestSchema), {
      ...options,
      timeoutMs: this.#listTimeoutMs,
      action: 'Cannot list the unfinished writes of containerd',
    });
    return answer?.statuses ?? [];
  }

  /** @returns whether there was such a write */
  async abortIngest(ref: string, options: StoreCallOptions): Promise<boolean> {
    const answer = await this.#unary(methods.abort, create(AbortRequestSchema, { ref }), {
      ...options,
      action: `Cannot abort the write ${ref} in containerd`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /** Where the content store keeps its files, as containerd itself sees the file system. */
  async contentPath(options: StoreCallOptions): Promise<string | undefined> {
    const request = create(PluginsRequestSchema, {
      filters: ['type==io.containerd.content.v1'],
    });
    const answer = await this.#unary(methods.plugins, request, {
      ...options,
      action: 'Cannot ask containerd where its content is',
    });
    const roots = (answer?.plugins ?? []).map((plugin) => plugin.exports['root']);
    return roots.find((root) => root !== undefined && root !== '');
  }

  async version(options: StoreCallOptions): Promise<string> {
    const answer = await this.#unary(methods.version, create(EmptySchema), {
      ...options,
      action: 'Cannot ask containerd for its version',
    });
    return answer?.version ?? '';
  }

  close(): void {
    this.#client.close();
  }

  #unary<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: UnaryLimits,
  ): Promise<Response | undefined> {
    const { signal, action, timeoutMs = this.#callTimeoutMs } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as Error);
        return;
      }
      const abort = (): void => call.cancel();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        this.#metadata,
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          signal?.removeEventListener('abort', abort);
          if (error === null) resolve(answer);
          else if (options.missing?.includes(error.code) === true) resolve(undefined);
          else reject(callFailure(error, action, signal));
        },
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #serverStream<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: StoreCallOptions & { readonly action: string },
  ): PacedStream<Response> {
    const pace = new OneByOne();
    // A slow reader may take any time, so the deadline is on each message instead.
    const callOptions: CallOptions = { interceptors: [pace.interceptor] };
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.#metadata,
      callOptions,
    );
    return new PacedStream(call, pace, { ...options, timeoutMs: this.#listTimeoutMs });
  }
}

interface UnaryLimits extends StoreCallOptions {
  /** What was tried, for the message of an error. */
  readonly action: string;
  readonly timeoutMs?: number;
  /** The status codes that mean undefined. */
  readonly missing?: readonly status[];
}
