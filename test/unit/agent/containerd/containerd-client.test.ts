import { join } from 'node:path';

import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { ContainerdClient } from '../../../../src/agent/containerd/containerd-client.ts';
import { ContainerdConnection } from '../../../../src/agent/containerd/containerd-connection.ts';
import { StoreUnavailableError } from '../../../../src/agent/store.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import {
  Content,
  ReadContentResponseSchema,
} from '../../../../src/rpc/gen/containerd/services/content/v1/content_pb.ts';
import type {
  ReadContentRequest,
  ReadContentResponse,
} from '../../../../src/rpc/gen/containerd/services/content/v1/content_pb.ts';
import {
  VersionResponseSchema,
  Version,
} from '../../../../src/rpc/gen/containerd/services/version/v1/version_pb.ts';
import type { VersionResponse } from '../../../../src/rpc/gen/containerd/services/version/v1/version_pb.ts';
import { serviceDefinition } from '../../../../src/rpc/service-definition.ts';
import { makeSocketDirectory, removeDirectory } from '../../../support/work-dir.ts';

type ReadCall = ServerWritableStream<ReadContentRequest, ReadContentResponse>;

const mib = 1024 * 1024;
const messageCount = 24;
const digest = digestOf(Buffer.from('any'));

let directory: string;
let server: Server;
let connection: ContainerdConnection;
let client: ContainerdClient;
let read: (call: ReadCall) => void;
let cancelled: Promise<void>;

beforeEach(async () => {
  directory = await makeSocketDirectory();
  const socketPath = join(directory, 'containerd.sock');
  const { promise, resolve } = Promise.withResolvers<undefined>();
  cancelled = promise;
  server = new Server();
  server.addService(serviceDefinition(Content), {
    read(call: ReadCall) {
      call.on('cancelled', () => resolve(undefined));
      read(call);
    },
  });
  server.addService(serviceDefinition(Version), {
    version: (_: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<VersionResponse>) =>
      answer(null, create(VersionResponseSchema, { version: '1' })),
  });
  await new Promise<void>((bound, failed) => {
    server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) bound();
      else failed(error);
    });
  });
  connection = new ContainerdConnection({
    socketPath,
    namespace: 'test',
    callTimeoutMs: 2000,
    listTimeoutMs: 1500,
  });
  client = new ContainerdClient(connection);
});

afterEach(async () => {
  connection.close();
  server.forceShutdown();
  await removeDirectory(directory);
});

describe('ContainerdClient.read', () => {
  it('lets containerd run only a little ahead of a slow reader', async () => {
    let sent = 0;
    read = (call) => {
      const data = Buffer.alloc(mib);
      const send = (): void => {
        call.write(create(ReadContentResponseSchema, { data }), () => {
          sent += 1;
          if (sent < messageCount) send();
          else call.end();
        });
      };
      send();
    };
    const stream = client.read(digest, 0);
    const first = (await stream.next()) as IteratorYieldResult<ReadContentResponse>;
    expect(first.value.data.byteLength).toBe(mib);
    // Each round trip on the same connection is a chance for more messages to come.
    for (let round = 0; round < 100; round += 1) await client.version({});
    expect(sent).toBeLessThanOrEqual(4);
    let received = 1;
    for await (const { data } of stream) received += data.byteLength / mib;
    expect(received).toBe(messageCount);
  });

  it('ends the call at the server when the reader leaves', async () => {
    read = (call) => call.write(create(ReadContentResponseSchema, { data: Buffer.alloc(10) }));
    for await (const { data } of client.read(digest, 0)) {
      expect(data.byteLength).toBe(10);
      break;
    }
    await cancelled;
  });

  it('throws StoreUnavailableError when the next message does not come in time', async () => {
    read = (call) => call.write(create(ReadContentResponseSchema, { data: Buffer.alloc(10) }));
    const stream = client.read(digest, 0);
    await stream.next();
    const silence = stream.next();
    await expect(silence).rejects.toThrow(StoreUnavailableError);
    await expect(silence).rejects.toThrow(/^Cannot read sha256:.*: no answer within 1500 ms$/);
    await cancelled;
  });

  it('throws the reason of its signal, and ends the call at the server', async () => {
    read = (call) => call.write(create(ReadContentResponseSchema, { data: Buffer.alloc(10) }));
    const controller = new AbortController();
    const stream = client.read(digest, 0, { signal: controller.signal });
    await stream.next();
    const waiting = stream.next();
    const reason = new Error('no longer wanted');
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await cancelled;
  });

  it('throws StoreUnavailableError when the stream breaks', async () => {
    const details = 'disk is gone';
    read = (call) => call.emit('error', { code: status.UNKNOWN, details });
    const broken = client.read(digest, 0).next();
    await expect(broken).rejects.toThrow(StoreUnavailableError);
    await expect(broken).rejects.toThrow(/from containerd: disk is gone$/);
  });
});
