import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { credentials, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import {
  AbortIngestRequestSchema,
  Local,
  KeepRequestSchema,
  LocateRequestSchema,
  ObserveRequestSchema,
  RecordProofRequestSchema,
  Peer,
  ReadRequestSchema,
  StatRequestSchema,
  WatchRequestSchema,
} from '../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { processStart } from '../../src/telemetry/process-start.ts';
import { checkedDigest } from '../faults/matrix/scene.ts';
import { residentBytes } from '../support/leaks.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get } from '../support/oci-client.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { callOnce, FuzzNode, inTurns } from './fuzz-node.ts';
import { framed, openSession, rawCall, type RawAnswer, type RawCall } from './raw-call.ts';

expectNoLeaks();

const scope = suiteScope('fuzz-rpc');
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const maxReaders = 8;
const halfOpenStreams = 1000;
const silenceMs = 1500;
const mebibyte = 1024 ** 2;
const timeoutMs = 5000;

const peerPaths = Peer.methods.map(({ name }) => `/${Peer.typeName}/${name}`);
const localPaths = Local.methods.map(({ name }) => `/${Local.typeName}/${name}`);
const paths = [...peerPaths, ...localPaths];

let fuzzed: FuzzNode;
const children: ChildProcess[] = [];

beforeAll(async () => {
  fuzzed = await FuzzNode.start(scope(), {
    agent: { limits: { maxReaders, readerStallMs: 1000 } },
  });
}, 60_000);

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
});

/** The two doors to the agent: for other nodes, and for its own registry. */
const doors = {
  'port for other nodes': () => fuzzed.tlsSocket(),
  'own socket': () => connectTcp({ path: fuzzed.node.socketPath }),
} satisfies Record<string, () => Socket>;
const doorNames = Object.keys(doors) as (keyof typeof doors)[];

async function withSession<T>(
  door: keyof typeof doors,
  run: (session: ClientHttp2Session) => Promise<T>,
): Promise<T> {
  const session = openSession(doors[door]());
  try {
    return await run(session);
  } finally {
    session.destroy();
  }
}

async function answerTo(door: keyof typeof doors, call: RawCall): Promise<RawAnswer> {
  return withSession(door, (session) => rawCall(session, call));
}

/** Messages that are right for some method, and others. */
function messages(): fc.Arbitrary<Buffer> {
  const digest = fuzzed.image.layer.digest;
  const right = [
    toBinary(StatRequestSchema, create(StatRequestSchema, { digest })),
    toBinary(ReadRequestSchema, create(ReadRequestSchema, { digest, offsetBytes: -1n })),
    toBinary(ReadRequestSchema, create(ReadRequestSchema, { digest, offsetBytes: 2n ** 62n })),
    toBinary(LocateRequestSchema, create(LocateRequestSchema)),
    toBinary(ObserveRequestSchema, create(ObserveRequestSchema, { name: 'x/y:z', tag: {} })),
    // The agent itself, and init, with beginnings that are not theirs.
    ...[fuzzed.node.agent.pid, fuzzed.node.registry.pid, 1, -1].map((pid) =>
      toBinary(
        WatchRequestSchema,
        create(WatchRequestSchema, { pid: BigInt(pid), timeoutMs: 1n, processStart: '1' }),
      ),
    ),
  ].map((bytes) => Buffer.from(bytes));
  return fc.oneof(
    fc.constantFrom(...right),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.tuple(fc.constantFrom(...right), fc.nat(), fc.nat({ max: 255 })).map(([bytes, at, put]) => {
      const altered = Buffer.from(bytes);
      if (altered.length > 0) altered[at % altered.length] = put;
      return altered;
    }),
  );
}

const bodies = (message: Buffer): fc.Arbitrary<Buffer> =>
  fc.oneof(
    fc.constant(framed(message)),
    fc.constant(message),
    fc.constant(Buffer.alloc(0)),
    fc.nat({ max: message.length + 4 }).map((end) => framed(message).subarray(0, end)),
    fc
      .constantFrom(message.length + 1, 65_537, 2 ** 31, 2 ** 32 - 1)
      .map((length) => framed(message, { length })),
    fc.nat({ max: 255 }).map((flag) => framed(message, { flag })),
    fc.constant(Buffer.concat([framed(message), framed(message), message])),
  );

const headers: fc.Arbitrary<Record<string, string>> = fc
  .subarray<[name: string, value: string]>(
    [
      ['content-type', 'application/json'],
      ['content-type', 'text/html'],
      ['content-type', ''],
      ['content-type', 'application/grpc+json'],
      ['content-type', 'application/grpc-web'],
      ['content-type', 'application/grpc; a=b'],
      ['grpc-timeout', '99999999H'],
      ['grpc-timeout', '0n'],
      ['grpc-timeout', 'soon'],
      ['grpc-encoding', 'gzip'],
      ['grpc-encoding', 'deflate'],
      ['grpc-encoding', 'identity'],
      ['grpc-encoding', 'rar'],
      ['grpc-accept-encoding', ',,,'],
      ['grpc-status', '0'],
      ['x-bin', '%%%'],
      ['x-long', 'x'.repeat(4000)],
      ['user-agent', ''],
    ],
    { maxLength: 3 },
  )
  .map((chosen) => Object.fromEntries(chosen));

function calls(): fc.Arbitrary<RawCall> {
  const method = fc.oneof(
    { weight: 12, arbitrary: fc.constant('POST') },
    fc.constantFrom('GET', 'PUT', 'HEAD', 'OPTIONS'),
  );
  const path = fc.constantFrom(...paths, '/', '/salvor.agent.v1.Local/', '*');
  return fc
    .record({ path, method, headers, message: messages() })
    .chain(({ message, ...call }) => bodies(message).map((body) => ({ ...call, body })));
}

interface Victim {
  readonly child: ChildProcess;
  readonly exited: Promise<unknown>;
  /** Says that the agent shall end it after a silence. */
  readonly message: Buffer;
}

async function startVictim(): Promise<Victim> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => undefined, 1000)'], {
    stdio: 'ignore',
  });
  children.push(child);
  await once(child, 'spawn');
  const pid = child.pid ?? 0;
  const terms = { pid: BigInt(pid), timeoutMs: BigInt(silenceMs) };
  const message = create(WatchRequestSchema, { ...terms, processStart: await processStart(pid) });
  return {
    child,
    exited: once(child, 'exit'),
    message: Buffer.from(toBinary(WatchRequestSchema, message)),
  };
}

/** Opens a watch and waits until the agent says that it has begun. */
async function beginWatch(session: ClientHttp2Session, victim: Victim): Promise<ClientHttp2Stream> {
  const stream = session.request({
    ':path': `/${Local.typeName}/${Local.method.watch.name}`,
    ':method': 'POST',
    te: 'trailers',
    'content-type': 'application/grpc',
  });
  stream.on('error', () => undefined);
  stream.resume();
  stream.write(framed(victim.message));
  await once(stream, 'response');
  return stream;
}

function ownClient(): AgentClient {
  return new AgentClient(
    { target: `unix:${fuzzed.node.socketPath}`, windowBytes: 64 * 1024, name: 'node' },
    { credentials: credentials.createInsecure() },
  );
}

async function readersNow(): Promise<number> {
  const { body } = await get(`http://127.0.0.1:${fuzzed.node.agentAdminPort}/metrics`);
  return Number(/^salvor_agent_readers (\d+)$/m.exec(body.toString())?.[1]);
}

describe(`an agent that gets calls which are none (FUZZ_SEED=${seed})`, () => {
  test.each(doorNames)('ends every one of them, whatever the method, on its %s', async (door) => {
    const samples = fc.sample(calls(), { numRuns: 400, seed });
    const codes = new Set<number | undefined>();
    await inTurns([0, 1, 2, 3], async (part) =>
      withSession(door, async (session) => {
        const mine = samples.filter((_, index) => index % 4 === part);
        // One after the other on a connection that all of them share, as long as it lasts.
        let current = session;
        for (const call of mine) {
          if (current.destroyed || current.closed) current = openSession(doors[door]());
          codes.add((await rawCall(current, call)).code);
        }
        current.destroy();
      }),
    );
    expect([...codes].filter((code) => code !== undefined).length).toBeGreaterThan(3);
    await fuzzed.expectAllWell();
  });

  test.each(paths)('ends garbage, half a message, and too much of one, under %s', async (path) => {
    const digest = fuzzed.image.layer.digest;
    const stat = toBinary(StatRequestSchema, create(StatRequestSchema, { digest }));
    const right = framed(Buffer.from(stat));
    const isLocal = localPaths.includes(path);
    for (const door of isLocal ? (['own socket'] as const) : doorNames) {
      const codeOf = async (body: Buffer, others?: Record<string, string>): Promise<unknown> => {
        const { code, http } = await answerTo(door, { path, body, headers: others ?? {} });
        return code ?? `HTTP ${http}`;
      };
      expect(await codeOf(framed(Buffer.from([0xff, 0xff, 0xff])))).toBe(status.INTERNAL);
      // A watch without a message is one that has parted.
      const forHalf = path.endsWith('/Watch') ? status.OK : status.UNIMPLEMENTED;
      expect(await codeOf(right.subarray(0, 20)), 'half').toBe(forHalf);
      expect(await codeOf(framed(Buffer.alloc(70_000, 0x0a)))).toBe(status.RESOURCE_EXHAUSTED);
      expect(await codeOf(framed(Buffer.alloc(9), { length: 2 ** 32 - 1 }))).toBe(
        status.RESOURCE_EXHAUSTED,
      );
      expect(await codeOf(right, { 'content-type': 'application/json' })).toBe('HTTP 415');
      // 60 kB that become 60 MB.
      const bomb = framed(gzipSync(Buffer.alloc(60 * mebibyte)), { flag: 1 });
      expect(await codeOf(bomb, { 'grpc-encoding': 'gzip' })).toBe(status.RESOURCE_EXHAUSTED);
    }
    await fuzzed.expectAllWell();
    expect(await residentBytes(fuzzed.node.agent.pid)).toBeLessThan(400 * mebibyte);
  });

  test('refuses to other nodes what is for its own registry', async () => {
    const name = 'fuzz.test/team/app:forged';
    const digest = fuzzed.image.layer.digest;
    const victim = await startVictim();
    const encoded = {
      Locate: toBinary(
        LocateRequestSchema,
        create(LocateRequestSchema, { key: { case: 'digest', value: digest } }),
      ),
      Observe: toBinary(
        ObserveRequestSchema,
        create(ObserveRequestSchema, {
          name,
          tag: { digest, mediaType: 'a/b', sizeBytes: 1n, observedAt: { seconds: 1n, nanos: 0 } },
        }),
      ),
      AbortIngest: toBinary(AbortIngestRequestSchema, create(AbortIngestRequestSchema, { digest })),
      Keep: toBinary(KeepRequestSchema, create(KeepRequestSchema, { digest })),
      RecordProof: toBinary(RecordProofRequestSchema, create(RecordProofRequestSchema)),
      Watch: victim.message,
    };
    expect(Object.keys(encoded).sort()).toEqual(Local.methods.map((one) => one.name).sort());
    for (const [method, bytes] of Object.entries(encoded)) {
      const call = { path: `/${Local.typeName}/${method}`, message: Buffer.from(bytes) };
      const overTls = new MutualChannelCredentials(fuzzed.identity);
      expect(await callOnce(`127.0.0.1:${fuzzed.agentPort}`, overTls, call), method).toBe(
        status.UNIMPLEMENTED,
      );
    }
    const client = ownClient();
    const known = await client.resolve(name, { timeoutMs }).finally(() => client.close());
    expect(known.tags).toEqual([]);
    expect(victim.child.signalCode).toBeNull();
  });

  test('ends nobody for a watch that turned into garbage, and ends who fell silent', async () => {
    const garbage = [
      framed(Buffer.from([0xff, 0xff])),
      framed(Buffer.alloc(70_000)),
      framed(Buffer.alloc(3), { flag: 7 }),
      // A process that there is none of: the terms of a watch do not change.
      framed(Buffer.from(toBinary(WatchRequestSchema, create(WatchRequestSchema, { pid: -1n })))),
    ];
    const spared = await Promise.all(garbage.map(startVictim));
    const cut = await startVictim();
    const silent = await startVictim();
    await withSession('own socket', async (session) => {
      for (const [index, bytes] of garbage.entries()) {
        const stream = await beginWatch(session, spared[index]!);

        const answered = once(stream, 'trailers');
        stream.write(bytes);
        await answered;
      }
      const half = await beginWatch(session, cut);
      half.write(framed(cut.message).subarray(0, 7));
      half.close(8);
      // This one begins last, so that the others would have gone before it.
      await beginWatch(session, silent);
      await silent.exited;
    });
    const gone = [...spared, cut].filter(({ child }) => child.signalCode !== null);
    expect(gone).toEqual([]);
    expect(silent.child.signalCode).toBe('SIGKILL');
    await fuzzed.expectAllWell({ but: /fallen silent/ });
  });

  test.each(doorNames)(
    'serves others beside 1000 calls that do not end, on its %s',
    async (door) => {
      const before = await residentBytes(fuzzed.node.agent.pid);
      const perSession = 100;
      const sessions = Array.from({ length: halfOpenStreams / perSession }, () =>
        openSession(doors[door]()),
      );
      const streams = sessions.flatMap((session, at) =>
        Array.from({ length: perSession }, (_, index) => {
          const stream = session.request({
            ':path': paths[(at * perSession + index) % paths.length]!,
            ':method': 'POST',
            te: 'trailers',
            'content-type': 'application/grpc',
          });
          stream.on('error', () => undefined);
          stream.resume();
          // Nothing, some of a message's head, some of a message.
          stream.write(framed(Buffer.alloc(50)).subarray(0, (index % 4) * 4));
          return stream;
        }),
      );
      try {
        // Its answer comes behind everything that was sent before.
        await Promise.all(sessions.map(pingOf));
        const open = streams.filter((stream) => !stream.destroyed && stream.id !== undefined);
        expect(open.length).toBeGreaterThan(halfOpenStreams / 3);
        await fuzzed.expectAllWell({ but: /fallen silent/ });
        const client = ownClient();
        const held = await client
          .stat(checkedDigest(fuzzed.image.layer.digest), { timeoutMs })
          .finally(() => client.close());
        expect(held?.sizeBytes).toBe(fuzzed.image.layer.bytes.length);
        expect(open.filter((stream) => !stream.closed).length).toBeGreaterThan(halfOpenStreams / 3);
      } finally {
        for (const session of sessions) session.destroy();
      }
      await fuzzed.expectNothingLeft();
      expect(await residentBytes(fuzzed.node.agent.pid)).toBeLessThan(before + 100 * mebibyte);
    },
  );

  test('gives the places of readers that take nothing to others', async () => {
    const digest = fuzzed.image.layer.digest;
    const read = toBinary(ReadRequestSchema, create(ReadRequestSchema, { digest }));
    const session = openSession(fuzzed.tlsSocket(), { initialWindowSize: 0 });
    try {
      const stuck = Array.from({ length: maxReaders }, () => {
        const stream = session.request({
          ':path': `/${Peer.typeName}/${Peer.method.read.name}`,
          ':method': 'POST',
          te: 'trailers',
          'content-type': 'application/grpc',
        });
        stream.on('error', () => undefined);
        stream.end(framed(Buffer.from(read)));
        return stream;
      });
      await waitFor(async () => (await readersNow()) === maxReaders, { what: 'all places taken' });
      await waitFor(async () => (await readersNow()) === 0, { what: 'all places free' });
      expect(stuck).toHaveLength(maxReaders);
      await fuzzed.expectAllWell({ but: /fallen silent/ });
    } finally {
      session.destroy();
    }
  });

  test('has nothing left of it', async () => {
    expect(await readersNow()).toBe(0);
    await fuzzed.expectNothingLeft();
    await fuzzed.expectAllWell({ but: /fallen silent/ });
  });
});

async function pingOf(session: ClientHttp2Session): Promise<void> {
  if (session.connecting) await once(session, 'connect');
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  session.ping((error) => (error === null ? resolve(undefined) : reject(error)));
  await promise;
}
