import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Refusal } from '../../src/agent/refused-connections.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import type { AgentScene } from './agent-scene.ts';
import { agentSuite } from './agent-suite.ts';

expectNoLeaks();

const LIMITS = { timeoutMs: 5000 };
const [HOST_A, HOST_B, HOST_C] = ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
/** The head of a TLS record of 16 KiB that never comes. */
const UNFINISHED = Buffer.from([0x16, 3, 1, 0x3f, 0xff]);

const suite = agentSuite(['agent', 'registry']);
let scene: AgentScene;
let sockets: Socket[] = [];

beforeEach(() => {
  sockets = [];
});

afterEach(() => {
  for (const socket of sockets) socket.destroy();
});

async function start(limits: Partial<Parameters<typeof AgentScene.start>[0]>): Promise<void> {
  scene = await suite.start(limits);
}

/** Connections that begin a handshake and leave it at that. */
async function strangers(count: number, host: string): Promise<Socket[]> {
  const made = Array.from({ length: count }, () =>
    connect({ port: scene.port, host: '127.0.0.1', localAddress: host }),
  );
  sockets.push(...made);
  await Promise.all(
    made.map(async (socket) => {
      // What the agent ends may end as a reset.
      socket.on('error', () => undefined);
      socket.resume();
      await once(socket, 'connect');
      socket.write(UNFINISHED);
    }),
  );
  return made;
}

/** A connection with a certificate of the cluster. */
async function member(host: string): Promise<TLSSocket> {
  const { ca, certificate, key } = suite.identity;
  const socket = connectTls({
    ...{ port: scene.port, host: '127.0.0.1', localAddress: host },
    ...{ ca, cert: certificate, key, ALPNProtocols: ['h2'] },
    checkServerIdentity: () => undefined,
  });
  sockets.push(socket);
  socket.on('error', () => undefined);
  socket.resume();
  await once(socket, 'secureConnect');
  return socket;
}

const open = (of: readonly Socket[]): number => of.filter(({ destroyed }) => !destroyed).length;

async function refused(reason: Refusal['reason']): Promise<number> {
  const { values } = await scene.metrics.refusedConnections.get();
  return values.find(({ labels }) => labels.reason === reason)?.value ?? 0;
}

/** Whether a node's agent gets an answer, on a connection of its own. */
async function isServed(): Promise<boolean> {
  const { digest, sizeBytes } = scene.store.add(1000);
  const client = scene.peer(new MutualChannelCredentials(suite.identity));
  const held = await client.stat(digest, LIMITS);
  client.close();
  return held?.sizeBytes === sizeBytes;
}

describe('the port for other nodes', () => {
  it('does not wait for connections without a certificate when it is closed', async () => {
    await start({});
    await strangers(3, HOST_A);
    // Those of one listener are accepted in the order in which they come.
    await member(HOST_B);

    await scene[Symbol.asyncDispose]();

    // Else it was their time for TLS that ended them.
    expect(await refused('slow')).toBe(0);
  });

  it('holds no more connections without a certificate than it is told to', async () => {
    await start({ maxHandshakes: 8 });

    const made = await strangers(100, HOST_A);

    await waitFor(async () => open(made) === 8, { what: 'the other 92 to be ended' });
    expect(await refused('crowd')).toBe(92);
  });

  it.each([
    ['a host of their own', HOST_A],
    ["the node's own host", '127.0.0.1'],
  ])('serves a node while strangers from %s hold all places', async (_, host) => {
    await start({ maxHandshakes: 8 });
    const made = await strangers(50, host);
    await waitFor(async () => open(made) === 8, { what: 'the other 42 to be ended' });

    expect(await isServed()).toBe(true);
  });

  it('ends connections of the host that has most', async () => {
    await start({ maxHandshakes: 8 });
    const few = await strangers(2, HOST_A);
    const many = await strangers(6, HOST_B);
    const more = await strangers(5, HOST_C);

    await waitFor(async () => open([...few, ...many, ...more]) === 8, { what: '5 to be ended' });
    // 2 and 3 and 3: nobody has more than a place more than the others that want one.
    expect(open(few)).toBe(2);
    expect(open(many)).toBe(3);
    expect(open(more)).toBe(3);
  });

  it('ends a handshake that takes too long', async () => {
    await start({ handshakeMs: 50 });
    const made = await strangers(3, HOST_A);

    await waitFor(async () => open(made) === 0, { what: 'all to be ended' });
    expect(await refused('slow')).toBe(3);
  });

  it('keeps the connections that a node has, and refuses it further ones', async () => {
    await start({ maxConnections: 4 });
    const first = [await member(HOST_A), await member(HOST_A), await member(HOST_A)];
    first.push(await member(HOST_A));

    const fifth = await member(HOST_A);
    await waitFor(async () => open([fifth]) === 0, { what: 'the fifth to be ended' });

    expect(open(first)).toBe(4);
    expect(await refused('crowd')).toBe(1);
  });

  it('serves another node while one has all the places', async () => {
    await start({ maxConnections: 4 });
    const greedy = [await member(HOST_A), await member(HOST_A), await member(HOST_A)];
    greedy.push(await member(HOST_A));

    expect(await isServed()).toBe(true);
    await waitFor(async () => open(greedy) === 3, { what: 'one of it to be ended' });
  });

  it('has all its places again once connections are closed', async () => {
    await start({ maxHandshakes: 8, maxConnections: 8 });
    for (let round = 0; round < 3; round += 1) {
      const made = await Promise.all([HOST_A, HOST_A, HOST_B, HOST_C].map(member));
      const waiting = await strangers(4, HOST_A);
      expect(open([...made, ...waiting])).toBe(8);
      const closed = [...made, ...waiting].map((socket) => once(socket, 'close'));
      for (const socket of [...made, ...waiting]) socket.destroy();
      await Promise.all(closed);
    }
    expect(await isServed()).toBe(true);
    expect(await refused('crowd')).toBe(0);
  });
});
