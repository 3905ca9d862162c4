import { status } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { EmptySchema } from '@bufbuild/protobuf/wkt';

import type { Digest } from '../../oci/digest.ts';
import {
  Containers,
  ListContainersRequestSchema,
  type Container,
} from '../../rpc/gen/containerd/services/containers/v1/containers_pb.ts';
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
  Events,
  SubscribeRequestSchema,
  type Envelope,
} from '../../rpc/gen/containerd/services/events/v1/events_pb.ts';
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
import type { ContainerdConnection } from './containerd-connection.ts';
import type { PacedStream } from './paced-stream.ts';

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
  listContainers: methodDefinition(Containers.method.list),
  subscribe: methodDefinition(Events.method.subscribe),
};

/** Keeps what a list does not need to carry; the syntax is containerd's. */
export interface ListOptions extends StoreCallOptions {
  /** Any of them has to match; none: everything. */
  readonly filters?: readonly string[];
}

/**
 * Reads in one namespace of containerd.
 *
 * What containerd does not find becomes undefined, where that can be. Every other failure is a
 * StoreUnavailableError, except that a caller's own abort keeps its reason.
 */
export class ContainerdClient {
  readonly #connection: ContainerdConnection;

  constructor(connection: ContainerdConnection) {
    this.#connection = connection;
  }

  async image(name: string, options: StoreCallOptions): Promise<Image | undefined> {
    const request = create(GetImageRequestSchema, { name });
    const answer = await this.#connection.unary(methods.getImage, request, {
      ...options,
      action: `Cannot ask containerd for ${name}`,
      missing: [status.NOT_FOUND, status.INVALID_ARGUMENT],
    });
    return answer?.image;
  }

  async images({ filters = [], ...options }: ListOptions): Promise<Image[]> {
    const request = create(ListImagesRequestSchema, { filters: [...filters] });
    const answer = await this.#connection.unary(methods.listImages, request, {
      ...options,
      timeoutMs: this.#connection.listTimeoutMs,
      action: 'Cannot list the images of containerd',
    });
    return answer?.images ?? [];
  }

  async info(digest: Digest, options: StoreCallOptions): Promise<Info | undefined> {
    const answer = await this.#connection.unary(
      methods.info,
      create(InfoRequestSchema, { digest }),
      {
        ...options,
        action: `Cannot ask containerd for ${digest}`,
        missing: [status.NOT_FOUND],
      },
    );
    return answer?.info;
  }

  async *content({ filters = [], ...options }: ListOptions): AsyncGenerator<Info> {
    const request = create(ListContentRequestSchema, { filters: [...filters] });
    const stream = this.#connection.serverStream(methods.list, request, {
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
    return this.#connection.serverStream(methods.read, request, {
      ...options,
      action: `Cannot read ${digest} from containerd`,
    });
  }

  /** The blobs that are being written. */
  async ingests(options: StoreCallOptions): Promise<Status[]> {
    const answer = await this.#connection.unary(
      methods.listStatuses,
      create(ListStatusesRequestSchema),
      {
        ...options,
        timeoutMs: this.#connection.listTimeoutMs,
        action: 'Cannot list the unfinished writes of containerd',
      },
    );
    return answer?.statuses ?? [];
  }

  /** @returns whether there was such a write */
  async abortIngest(ref: string, options: StoreCallOptions): Promise<boolean> {
    const answer = await this.#connection.unary(
      methods.abort,
      create(AbortRequestSchema, { ref }),
      {
        ...options,
        action: `Cannot abort the write ${ref} in containerd`,
        missing: [status.NOT_FOUND],
      },
    );
    return answer !== undefined;
  }

  /** Where the content store keeps its files, as containerd itself sees the file system. */
  async contentPath(options: StoreCallOptions): Promise<string | undefined> {
    const request = create(PluginsRequestSchema, {
      filters: ['type==io.containerd.content.v1'],
    });
    const answer = await this.#connection.unary(methods.plugins, request, {
      ...options,
      action: 'Cannot ask containerd where its content is',
    });
    const roots = (answer?.plugins ?? []).map((plugin) => plugin.exports['root']);
    return roots.find((root) => root !== undefined && root !== '');
  }

  async version(options: StoreCallOptions): Promise<string> {
    const answer = await this.#connection.unary(methods.version, create(EmptySchema), {
      ...options,
      action: 'Cannot ask containerd for its version',
    });
    return answer?.version ?? '';
  }

  /** The containers of the namespace, running or not. */
  async containers(options: StoreCallOptions): Promise<Container[]> {
    const request = create(ListContainersRequestSchema);
    const answer = await this.#connection.unary(methods.listContainers, request, {
      ...options,
      timeoutMs: this.#connection.listTimeoutMs,
      action: 'Cannot list the containers of containerd',
    });
    return answer?.containers ?? [];
  }

  /**
   * What happens in the namespace from now on. Nothing is replayed, and garbage collection of
   * content is not told at all: list after each subscription, and again now and then.
   *
   * @param topics regular expressions without quotes, such as "/images/"
   */
  events(topics: readonly string[], options: StoreCallOptions = {}): PacedStream<Envelope> {
    const { namespace } = this.#connection;
    const filters = topics.map((topic) => `namespace==${namespace},topic~="${topic}"`);
    const request = create(SubscribeRequestSchema, { filters });
    return this.#connection.serverStream(methods.subscribe, request, {
      ...options,
      timeoutMs: Infinity,
      action: 'Cannot hear what happens in containerd',
    });
  }
}
