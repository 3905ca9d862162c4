import { setTimeout as delay } from 'node:timers/promises';
import { credentials, type ServerWritableStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AgentServer } from '../../../src/agent/agent-server.ts';
import { sendBlob, type FrameSink } from '../../../src/agent/blob-sender.ts';
import type { OpenBlob } from '../../../src/agent/store.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { AgentClient } from '../../../src/rpc/agent-client.ts';
import { encodeReadFrame } from '../../../src/rpc/read-frame.ts';

const windowBytes = 1024 * 1024;
const blobBytes = 8 * 1024 * 1024;
const streams = 12;
const digest = digestOf(Buffer.from('zeros'));
const zeros: OpenBlob = {
  digest,
  sizeBytes: blobBytes,
  fingerprint: 'zeros',
  read: async (target, position) => {
    const count = Math.min(target.length, blobBytes - position);
    readBytes += count;
    return count;
  },
  close: async () => undefined,
};

/** How much of all blobs the server was asked to read. */
let readBytes = 0;
let server: AgentServer;
let client: AgentClient;

beforeEach(async () => {
  readBytes = 0;
  const { signal } = new AbortController();
  server = new AgentServer(
    { windowBytes, maxConnections: 16, maxHandshakes: 16, maxConcurrentStreams: 100 },
    {
      peer: {
        read: (call: ServerWritableStream<unknown, Buffer>) => {
          const sink: FrameSink = {
            encode: encodeReadFrame,
            write: (...frame) => void call.write(...frame),
          };
          const part = {
            offsetBytes: 0,
            lengthBytes: 0,
            chunkBytes: 128 * 1024,
            stallMs: 60_000,
            signal,
          };
          const sent = sendBlob(sink, { blob: zeros, verified: true }, part);
          sent.then(
            () => call.end(),
            (error: unknown) => call.emit('error', error),
          );
        },
      },
    },
  );
  const port = await server.listen('127.0.0.1:0');
  client = new AgentClient(
    { target: `127.0.0.1:${port}`, windowBytes, name: 'test' },
    { credentials: credentials.createInsecure() },
  );
});

afterEach(async () => {
  client.close();
  await server.close({ signal: AbortSignal.timeout(1000) });
});

test('AgentClient.read lets blobs take turns on a connection', async () => {
  const received = Array.from({ length: streams }, () => 0);
  let largestWhenAllHadBegun = 0;
  const read = async (index: number): Promise<void> => {
    for await (const { data } of client.read({ digest, offsetBytes: 0 }, {})) {
      const isFirst = received[index] === 0;
      received[index] = received[index]! + data.length;
      if (isFirst && received.every((bytes) => bytes > 0)) {
        largestWhenAllHadBegun = Math.max(...received);
      }
    }
  };
  await Promise.all(received.map((_, index) => read(index)));
  expect(received).toEqual(received.map(() => blobBytes));
  expect(largestWhenAllHadBegun).toBeLessThan(blobBytes / 2);
});

test('AgentClient.read lets a slow reader hold up the sender', async () => {
  const stream = client.read({ digest, offsetBytes: 0 }, {});
  const frames = stream[Symbol.asyncIterator]();
  await frames.next();
  // Nothing tells that a sender waits, except that it does nothing for a while.
  let quietTurns = 0;
  while (quietTurns < 20) {
    const before = readBytes;
    await delay(10);
    quietTurns = readBytes === before ? quietTurns + 1 : 0;
  }
  // The window, and the few messages that each side has in hand.
  expect(readBytes).toBeLessThan(windowBytes + 8 * 128 * 1024);
  stream.cancel();
});
