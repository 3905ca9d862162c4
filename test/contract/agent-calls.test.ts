import { once } from 'node:events';
import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import type { AgentScene } from './agent-scene.ts';
import { agentSuite } from './agent-suite.ts';

expectNoLeaks();

const LIMITS = { timeoutMs: 5000 };
const MAX_CALLS = 20;

const suite = agentSuite();
let scene: AgentScene;
let sessions: ClientHttp2Session[];

beforeEach(() => {
  sessions = [];
});

afterEach(() => {
  for (const session of sessions) session.destroy();
});

async function start(requestMs: number): Promise<void> {
  const calls = { maxCalls: MAX_CALLS, requestMs, failureMs: 50, answerMs: 50 };
  scene = await suite.start({ calls, listingMs: 100 });
}

/** A connection of another node that speaks HTTP/2 by hand. */
async function session(host: string): Promise<ClientHttp2Session> {
  const { ca, certificate, key } = suite.identity;
  const made = connect(`https://127.0.0.1:${scene.port}`, {
    createConnection: () =>
      connectTls({
        ...{ port: scene.port, host: '127.0.0.1', localAddress: host },
        ...{ ca, cert: certificate, key, ALPNProtocols: ['h2'] },
        checkServerIdentity: () => undefined,
      }),
  });
  sessions.push(made);
  await once(made, 'connect');
  return made;
}

/** Begins a call and sends no request, or not all of it. */
function begin(on: ClientHttp2Session, part = Buffer.alloc(0), method = 'Stat'): ClientHttp2Stream {
  const stream = on.request(
    {
      ':method': 'POST',
      ':path': `/salvor.agent.v1.Peer/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
    },
    { endStream: false },
  );
  stream.on('error', () => undefined);
  if (part.length > 0) stream.write(part);
  return stream;
}

/** What a call comes to that the agent ends. */
async function outcome(stream: ClientHttp2Stream): Promise<number> {
  const [headers] = (await once(stream, 'response')) as [Record<string, string>];
  return Number(headers['grpc-status']);
}

/** Until the agent has cut them; with something left to read, none emits `close`. */
async function cut(streams: readonly ClientHttp2Stream[]): Promise<void> {
  await waitFor(() => streams.every(({ closed }) => closed), { what: 'them cut' });
}

async function isServed(): Promise<boolean> {
  const { digest, sizeBytes } = scene.store.add(1000);
  const client = scene.peer(new MutualChannelCredentials(suite.identity));
  const held = await client.stat(digest, LIMITS);
  client.close();
  return held?.sizeBytes === sizeBytes;
}

describe('calls of another node', () => {
  it('end when no request comes, or not all of it', async () => {
    await start(100);
    const on = await session('127.0.0.2');
    // One byte for the compression, four for the length: 60,000.
    const half = Buffer.concat([Buffer.from([0, 0, 0, 0xea, 0x60]), Buffer.alloc(30_000)]);

    // The third is whole, and does not say that it is all.
    const parts = [Buffer.alloc(0), half, Buffer.alloc(5)];
    const ends = await Promise.all(parts.map((part) => outcome(begin(on, part))));

    expect(ends).toEqual(Array(3).fill(status.DEADLINE_EXCEEDED));
  });

  it('are refused when its host has half of all, over all its connections', async () => {
    await start(60_000);
    for (let n = 0; n < 2; n += 1) {
      const on = await session('127.0.0.2');
      for (let call = 0; call < MAX_CALLS / 4; call += 1) begin(on);
      await new Promise<void>((resolve, reject) => {
        on.ping((error) => (error ? reject(error) : resolve()));
      });
    }

    const further = await session('127.0.0.2');
    expect(await outcome(begin(further))).toBe(status.RESOURCE_EXHAUSTED);
    expect(await isServed()).toBe(true);
  });

  it('are cut when nobody takes what a list says', async () => {
    await start(60_000);
    for (let blob = 0; blob < 20_000; blob += 1) scene.store.add(1);
    const empty = Buffer.alloc(5);
    const on = await session('127.0.0.2');

    // Nobody reads them: the window is full, and the rest waits at the agent.
    const streams = Array.from({ length: 3 }, () => begin(on, empty, 'List').end());

    await cut(streams);
  });

  it('are refused when its host asks for too many lists at once', async () => {
    await start(60_000);
    for (let blob = 0; blob < 20_000; blob += 1) scene.store.add(1);
    const on = await session('127.0.0.2');
    const streams = Array.from({ length: 4 }, () => begin(on, Buffer.alloc(5), 'List').end());

    const trailers = (await once(streams[3]!, 'response')) as [Record<string, string>];
    expect(Number(trailers[0]['grpc-status'])).toBe(status.RESOURCE_EXHAUSTED);
    await cut(streams.slice(0, 3));
  });

  it('have their places again, whatever became of the calls', async () => {
    await start(60_000);
    for (let round = 0; round < 4; round += 1) {
      const on = await session('127.0.0.1');
      const made = Array.from({ length: MAX_CALLS / 4 }, () => begin(on));
      await new Promise<void>((resolve, reject) => {
        on.ping((error) => (error ? reject(error) : resolve()));
      });
      for (const stream of made.slice(0, 2)) stream.close();
      on.destroy();
      await once(on, 'close');
      for (let n = 0; n < 5; n += 1) expect(await isServed()).toBe(true);
    }
  });
});
