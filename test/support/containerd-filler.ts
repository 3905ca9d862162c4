import { join } from 'node:path';

import {
  Client,
  Metadata,
  credentials,
  status,
  type ClientDuplexStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

import { sha256 } from './layer.ts';

const definition = loadSync(join(import.meta.dirname, 'proto', 'containerd-fill.proto'));
const timeoutMs = 15_000;
const writeAction = 1;
const commitAction = 2;

/** A write that is neither committed nor aborted. */
export interface HalfWrite {
  /** Tries to finish it. @throws with containerd's answer */
  commit(): Promise<void>;
  /** Lets go of it without a word, as a client that dies does. */
  drop(): void;
}

/** Puts content and names straight into a containerd daemon, odd ones included. */
export class ContainerdFiller {
  readonly #client: Client;
  readonly #metadata = new Metadata();

  constructor(socketPath: string, namespace = 'k8s.io') {
    this.#client = new Client(`unix://${socketPath}`, credentials.createInsecure());
    this.#metadata.set('containerd-namespace', namespace);
  }

  /** Commits a blob that garbage collection leaves alone. @returns its digest */
  async addBlob(bytes: Uint8Array): Promise<string> {
    const digest = sha256(bytes);
    const write = await this.beginWrite(digest, {
      ref: `test-${digest}`,
      data: bytes,
      labels: { 'containerd.io/gc.root': 'test' },
    });
    await write.commit();
    return digest;
  }

  /** Writes some bytes of a blob and leaves it at that. */
  async beginWrite(
    digest: string,
    options: {
      readonly ref: string;
      readonly data: Uint8Array;
      readonly labels?: Readonly<Record<string, string>>;
    },
  ): Promise<HalfWrite> {
    const { ref, data, labels = {} } = options;
    const call = this.#client.makeBidiStreamRequest(
      '/containerd.services.content.v1.Content/Write',
      serializer('WriteContentRequest'),
      deserializer('WriteContentResponse'),
      this.#metadata,
      { deadline: Date.now() + timeoutMs },
    );
    // An error that comes while nobody waits shows in the next exchange.
    call.on('error', () => undefined);
    const first = { action: writeAction, ref, expected: digest, data, labels };
    const isThere = await exchange(call, first);
    return {
      async commit() {
        if (isThere) return;
        const request = { action: commitAction, ref, expected: digest, labels };
        await exchange(call, { ...request, total: data.length, offset: data.length });
        call.end();
      },
      drop: () => call.cancel(),
    };
  }

  /** Creates an image record, whether its target exists or not. */
  async addImage(
    name: string,
    target: { readonly mediaType: string; readonly digest: string; readonly size: number },
  ): Promise<void> {
    await this.#unary('images.v1.Images/Create', 'CreateImageRequest', {
      image: { name, target },
    });
  }

  /** Removes an image record and waits for the garbage collection. */
  async removeImage(name: string): Promise<void> {
    await this.#unary('images.v1.Images/Delete', 'DeleteImageRequest', { name, sync: true });
  }

  /** Removes a blob. Its file goes with the next garbage collection. */
  async removeBlob(digest: string): Promise<void> {
    await this.#unary('content.v1.Content/Delete', 'DeleteContentRequest', { digest });
  }

  close(): void {
    this.#client.close();
  }

  async #unary(path: string, type: string, request: object): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#client.makeUnaryRequest(
      `/containerd.services.${path}`,
      serializer(type),
      deserializer('Empty'),
      request,
      this.#metadata,
      { deadline: Date.now() + timeoutMs },
      (error, answer) => {
        if (error === null) resolve(answer);
        else reject(error);
      },
    );
    await promise;
  }
}

/** @returns whether containerd has the blob already */
async function exchange(
  call: ClientDuplexStream<object, object>,
  request: object,
): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const answered = (): void => resolve(false);
  const fail = (error: ServiceError): void => {
    if (error.code === status.ALREADY_EXISTS) resolve(true);
    else reject(error);
  };
  call.once('data', answered);
  call.once('error', fail);
  call.write(request);
  return promise.finally(() => {
    call.off('data', answered);
    call.off('error', fail);
  });
}

function codec(type: string): MessageTypeDefinition<object, object> {
  return definition[`containerd.services.${type}`] as MessageTypeDefinition<object, object>;
}

function serializer(type: string): (message: object) => Buffer {
  return (message) => codec(type).serialize(message);
}

function deserializer(type: string): (bytes: Buffer) => object {
  return (bytes) => codec(type).deserialize(bytes);
}
