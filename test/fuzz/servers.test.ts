import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, credentials, status, type ChannelCredentials } from '@grpc/grpc-js';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority } from '../../src/rpc/certificates.ts';
import {
  mutualChannelCredentials,
  readIdentity,
  roleName,
  type Identity,
} from '../../src/rpc/identity.ts';
import { faultImage, pushTo } from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { openFileDescriptors } from '../support/leaks.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get, getHash } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { http2Garbage, httpGarbage } from './garbage.ts';

expectNoLeaks();

const scope = suiteScope('fuzz');
const image = faultImage('fuzz', { layerBytes: 100_000 });
const listenTimeoutMs = 300;
const atATime = 8;
const slackDescriptors = 8;

let node: DirectoryNode;
let identity: Identity;
let agentPort: number;
let descriptorsBefore: { readonly registry: number; readonly agent: number };

beforeAll(async () => {
  const registry = await MemoryRegistry.start(scope());
  pushTo(registry, image);
  agentPort = await freePort();
  const agentAddress = `127.0.0.1:${agentPort}`;
  const upstreams = { 'fuzz.test': { url: registry.url } };
  const members = [{ name: 'node', address: agentAddress }];
  const options = { name: 'node', agentAddress, members, upstreams };
  node = await DirectoryNode.create(scope(), options, await createAuthority());
  await node.hold(image.layer.digest, image.layer.bytes);
  await node.startAgent();
  await node.startRegistry();
  identity = await readIdentity(node.identityPaths);
  await expectAllWell();
  descriptorsBefore = {
    registry: await openFileDescriptors(node.registry.pid),
    agent: await openFileDescriptors(node.agent.pid),
  };
}, 60_000);

/** Both processes are there, have not complained, and serve. */
async function expectAllWell(): Promise<void> {
  expect([node.agent.hasExited, node.registry.hasExited]).toEqual([false, false]);
  const url = `${node.url}/v2/team/app/blobs/${image.layer.digest}?ns=fuzz.test`;
  const pulled = await getHash(url);
  expect([pulled.status, pulled.digest]).toEqual([200, image.layer.digest]);
  expect(await statOverTls(Buffer.from(`\n\u0047${image.layer.digest}`))).toBe(status.OK);
  const complaints = [...node.agent.lines(), ...node.registry.lines()].filter(({ text }) =>
    /"level":"(error|fatal)"|uncaught|unhandled/i.test(text),
  );
  expect(complaints).toEqual([]);
}

async function expectNothingLeft(): Promise<void> {
  const settled = await waitFor(
    async () => {
      const registry = await openFileDescriptors(node.registry.pid);
      const agent = await openFileDescriptors(node.agent.pid);
      return (
        registry <= descriptorsBefore.registry + slackDescriptors &&
        agent <= descriptorsBefore.agent + slackDescriptors
      );
    },
    { timeoutMs: 20_000 },
  ).catch(() => false);
  expect(settled, 'descriptors were given back').toBe(true);
}

/** Sends bytes, listens for a moment, and hangs up. */
async function throwAt(socket: Socket, bytes: Buffer): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => socket.destroy());
  const closed = once(socket, 'close');
  socket.write(bytes);
  await Promise.race([closed, delay(listenTimeoutMs)]);
  socket.destroy();
  return Buffer.concat(chunks).toString('latin1');
}

async function inTurns<T>(items: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await run(item);
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}

function tlsSocket(): Socket {
  return connectTls({
    host: '127.0.0.1',
    port: agentPort,
    ca: identity.ca,
    cert: identity.certificate,
    key: identity.key,
    minVersion: 'TLSv1.3',
    servername: roleName('agent'),
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
}

async function statOverTls(message: Buffer): Promise<status> {
  return callOnce(`127.0.0.1:${agentPort}`, mutualChannelCredentials(identity), {
    path: '/salvor.agent.v1.Peer/Stat',
    message,
  });
}

/** @returns the status that the call ends with */
async function callOnce(
  target: string,
  channel: ChannelCredentials,
  call: { readonly path: string; readonly message: Buffer },
): Promise<status> {
  const client = new Client(target, channel);
  const same = (bytes: Buffer): Buffer => bytes;
  const { promise, resolve } = Promise.withResolvers<status>();
  const options = { deadline: Date.now() + 5000 };
  client.makeUnaryRequest(call.path, same, same, call.message, options, (error) =>
    resolve(error?.code ?? status.OK),
  );
  return promise.finally(() => client.close());
}

const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);

function samplesOf<T>(arbitrary: fc.Arbitrary<T>, count: number): T[] {
  return fc.sample(arbitrary, { numRuns: count, seed });
}

describe(`servers that get garbage (FUZZ_SEED=${seed})`, () => {
  test('registry answers any HTTP with a status that it means, or hangs up', async () => {
    const statuses = new Set<number>();
    await inTurns(samplesOf(httpGarbage, 250), async (bytes) => {
      const socket = connectTcp({ host: '127.0.0.1', port: node.registryPort });
      const answer = await throwAt(socket, bytes);
      const first = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1];
      if (answer !== '') expect(first, JSON.stringify(bytes.toString('latin1'))).toBeDefined();
      if (first !== undefined) statuses.add(Number(first));
    });
    // 408 is for clients that do not come to the end of what they ask.
    const meant = [100, 200, 206, 400, 404, 405, 408, 411, 413, 414, 416, 417, 431, 503];
    for (const one of statuses) expect(meant).toContain(one);
    expect(statuses.size).toBeGreaterThan(2);
    await expectAllWell();
  });

  test('admin server answers any HTTP, or hangs up', async () => {
    await inTurns(samplesOf(httpGarbage, 60), async (bytes) => {
      await throwAt(connectTcp({ host: '127.0.0.1', port: node.adminPort }), bytes);
    });
    expect((await get(`http://127.0.0.1:${node.adminPort}/healthz`)).status).toBe(200);
  });

  test('agent lets go of those who speak no TLS, or show no certificate', async () => {
    await inTurns(samplesOf(httpGarbage, 40), async (bytes) => {
      const answer = await throwAt(connectTcp({ host: '127.0.0.1', port: agentPort }), bytes);
      expect(answer).not.toContain('HTTP/');
    });
    const anonymous = credentials.createSsl(identity.ca, null, null, {
      checkServerIdentity: () => undefined,
    });
    const message = Buffer.alloc(0);
    const call = { path: '/salvor.agent.v1.Peer/Stat', message };
    expect(await callOnce(`127.0.0.1:${agentPort}`, anonymous, call)).toBe(status.UNAVAILABLE);
    await expectAllWell();
  });

  test('agent stands any HTTP/2 frames over TLS and on its socket', async () => {
    await inTurns(samplesOf(http2Garbage, 120), async (bytes) => {
      await throwAt(tlsSocket(), bytes);
    });
    await inTurns(samplesOf(http2Garbage, 60), async (bytes) => {
      await throwAt(connectTcp({ path: node.socketPath }), bytes);
    });
    await expectAllWell();
  });

  test('agent refuses any message that is none, under any method', async () => {
    // Watch is left out: a message that happens to be right names a process to be ended.
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
    const overTls = mutualChannelCredentials(identity);
    await inTurns(samplesOf(calls, 80), async (call) => {
      codes.add(await callOnce(`127.0.0.1:${agentPort}`, overTls, call));
    });
    await inTurns(samplesOf(calls, 80), async (call) => {
      codes.add(await callOnce(`unix:${node.socketPath}`, credentials.createInsecure(), call));
    });
    expect(codes).toContain(status.UNIMPLEMENTED);
    expect(codes).not.toContain(status.DEADLINE_EXCEEDED);
    await expectAllWell();
  });

  test('registry and agent have nothing left of it', async () => {
    await expectNothingLeft();
  });
});
