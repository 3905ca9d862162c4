import { connect as connectTcp } from 'node:net';
import { create } from '@bufbuild/protobuf';
import { credentials, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { BLOB_PROTOCOL, encodeBlobRequest } from '../../src/rpc/blob-protocol.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { ReadRequestSchema } from '../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get } from '../support/oci-client.ts';
import { suiteScope } from '../support/test-scope.ts';
import { callOnce, FuzzNode, inTurns, throwAt } from './fuzz-node.ts';
import { http2Garbage, httpGarbage } from './garbage.ts';

expectNoLeaks();

const scope = suiteScope('fuzz');

let fuzzed: FuzzNode;

beforeAll(async () => {
  fuzzed = await FuzzNode.start(scope());
}, 60_000);

const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);

function samplesOf<T>(arbitrary: fc.Arbitrary<T>, count: number): T[] {
  return fc.sample(arbitrary, { numRuns: count, seed });
}

describe(`servers that get garbage (FUZZ_SEED=${seed})`, () => {
  test('registry answers any HTTP with a status that it means, or hangs up', async () => {
    const statuses = new Set<number>();
    await inTurns(samplesOf(httpGarbage, 250), async (bytes) => {
      const socket = connectTcp({ host: '127.0.0.1', port: fuzzed.node.registryPort });
      const answer = await throwAt(socket, bytes);
      const first = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1];
      if (answer !== '') expect(first, JSON.stringify(bytes.toString('latin1'))).toBeDefined();
      if (first !== undefined) statuses.add(Number(first));
    });
    // 408 is for clients that do not come to the end of what they ask.
    const meant = [100, 200, 206, 400, 404, 405, 408, 411, 413, 414, 416, 417, 431, 503];
    for (const one of statuses) expect(meant).toContain(one);
    expect(statuses.size).toBeGreaterThan(2);
    await fuzzed.expectAllWell();
  });

  test('admin server answers any HTTP, or hangs up', async () => {
    await inTurns(samplesOf(httpGarbage, 60), async (bytes) => {
      await throwAt(connectTcp({ host: '127.0.0.1', port: fuzzed.node.adminPort }), bytes);
    });
    expect((await get(`http://127.0.0.1:${fuzzed.node.adminPort}/healthz`)).status).toBe(200);
  });

  test('agent lets go of those who speak no TLS, or show no certificate', async () => {
    await inTurns(samplesOf(httpGarbage, 40), async (bytes) => {
      const answer = await throwAt(
        connectTcp({ host: '127.0.0.1', port: fuzzed.agentPort }),
        bytes,
      );
      expect(answer).not.toContain('HTTP/');
    });
    const anonymous = credentials.createSsl(fuzzed.identity.ca, null, null, {
      checkServerIdentity: () => undefined,
    });
    const message = Buffer.alloc(0);
    const call = { path: '/salvor.agent.v1.Peer/Stat', message };
    expect(await callOnce(`127.0.0.1:${fuzzed.agentPort}`, anonymous, call)).toBe(
      status.UNAVAILABLE,
    );
    await fuzzed.expectAllWell();
  });

  test('agent stands any HTTP/2 frames over TLS and on its socket', async () => {
    await inTurns(samplesOf(http2Garbage, 120), async (bytes) => {
      await throwAt(fuzzed.tlsSocket(), bytes);
    });
    await inTurns(samplesOf(http2Garbage, 60), async (bytes) => {
      await throwAt(connectTcp({ path: fuzzed.node.socketPath }), bytes);
    });
    await fuzzed.expectAllWell();
  });

  test('agent stands any bytes on a connection for blobs', async () => {
    const request = fc
      .record({
        digest: fc.oneof(fc.string(), fc.constant(`sha256:${'0'.repeat(64)}`)),
        offsetBytes: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
        lengthBytes: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
      })
      .map((fields) => encodeBlobRequest(create(ReadRequestSchema, fields)));
    const bytes = fc
      .array(fc.oneof(request, fc.uint8Array({ maxLength: 300 })), { maxLength: 8 })
      .map((parts) => Buffer.concat(parts));
    await inTurns(samplesOf(bytes, 120), async (garbage) => {
      await throwAt(fuzzed.tlsSocket(BLOB_PROTOCOL), garbage);
    });
    await fuzzed.expectAllWell();
  });

  test('agent refuses any message that is none, under any method', async () => {
    // Watch and what is no message at all: see rpc.test.ts.
    const paths = [
      ...['Stat', 'Read', 'Resolve', 'List', 'ReportCorrupt', 'Nothing'].map(
        (name) => `Peer/${name}`,
      ),
      ...['Locate', 'Observe', 'AbortIngest', 'Nothing'].map((name) => `Local/${name}`),
    ].map((name) => `/salvor.agent.v1.${name}`);
    const calls = fc.record({
      path: fc.constantFrom(...paths, '/', '/x/y'),
      message: fc.oneof(
        fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
        fc.constantFrom(0, 60_000, 70_000).map((size) => Buffer.alloc(size, 0x0a)),
      ),
    });
    const codes = new Set<status>();
    const overTls = new MutualChannelCredentials(fuzzed.identity);
    await inTurns(samplesOf(calls, 80), async (call) => {
      codes.add(await callOnce(`127.0.0.1:${fuzzed.agentPort}`, overTls, call));
    });
    await inTurns(samplesOf(calls, 80), async (call) => {
      codes.add(
        await callOnce(`unix:${fuzzed.node.socketPath}`, credentials.createInsecure(), call),
      );
    });
    expect(codes).toContain(status.UNIMPLEMENTED);
    expect(codes).not.toContain(status.DEADLINE_EXCEEDED);
    await fuzzed.expectAllWell();
  });

  test('registry and agent have nothing left of it', async () => {
    await fuzzed.expectNothingLeft();
  });
});
