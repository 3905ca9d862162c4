import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { create } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { BlobConnection } from '../../src/rpc/blob-connection.ts';
import { BLOB_PROTOCOL, encodeBlobRequest, takeBlobAnswer } from '../../src/rpc/blob-protocol.ts';
import { createAuthority, issueIdentity } from '../../src/rpc/certificates.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { ClientIdentity } from '../../src/rpc/client-identity.ts';
import { ReadRequestSchema } from '../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import type { Identity } from '../../src/rpc/identity.ts';
import type { PeerClient } from '../../src/rpc/peer-client.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import { AgentScene, madeByte, type MadeBlob } from './agent-scene.ts';
import { agentSuite } from './agent-suite.ts';

expectNoLeaks();

const MIB = 1024 * 1024;
const LIMITS = { timeoutMs: 10_000 };

const suite = agentSuite(['agent', 'registry']);
let scene: AgentScene;
let sockets: TLSSocket[] = [];
/** What the scene's servers accepted. */
let accepted: Socket[] = [];

const onAccepted = (message: unknown): void => {
  accepted.push((message as { socket: Socket }).socket);
};

beforeEach(() => {
  sockets = [];
  accepted = [];
  subscribe('net.server.socket', onAccepted);
});

afterEach(() => {
  unsubscribe('net.server.socket', onAccepted);
  for (const socket of sockets) socket.destroy();
});

async function start(options: Partial<Parameters<typeof AgentScene.start>[0]> = {}): Promise<void> {
  scene = await suite.start(options);
}

/** A connection that says what a test wants it to say. */
async function dial(protocols = [BLOB_PROTOCOL]): Promise<TLSSocket> {
  const { ca, certificate, key } = suite.identity;
  const socket = connectTls({
    ...{ port: scene.port, host: '127.0.0.1', ca, cert: certificate, key },
    ALPNProtocols: protocols,
    checkServerIdentity: () => undefined,
  });
  sockets.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  return socket;
}

const requestOf = (digest: string, offset = 0, length = 0): Buffer =>
  encodeBlobRequest(
    create(ReadRequestSchema, {
      digest,
      offsetBytes: BigInt(offset),
      lengthBytes: BigInt(length),
    }),
  );

/** What comes until there are so many bytes behind the answer. */
async function take(socket: TLSSocket, bytes: number) {
  let all: Buffer = Buffer.alloc(0);
  for await (const [chunk] of on(socket)) {
    all = Buffer.concat([all, chunk]);
    const taken = takeBlobAnswer(all);
    if (taken !== undefined && taken.rest.length >= bytes) return taken;
  }
  throw new Error('Cannot take it: the connection ended');
}

async function* on(socket: TLSSocket): AsyncGenerator<[Buffer]> {
  while (!socket.destroyed) yield (await once(socket, 'data')) as [Buffer];
}

async function readAll(
  client: PeerClient,
  request: { digest: Digest; offsetBytes: number; lengthBytes?: number },
): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const { data } of client.read(request, LIMITS)) parts.push(data);
  return Buffer.concat(parts);
}

const made = (from: number, to: number): Buffer =>
  Buffer.from(Array.from({ length: to - from }, (_, n) => madeByte(from + n)));

/** How many reads ended in a way, by connection or by call. */
async function reads(code: keyof typeof status): Promise<number> {
  const { values } = await scene.metrics.calls.get();
  return values.find(({ labels }) => labels.method === 'read' && labels.code === code)?.value ?? 0;
}

function clientOf(own: Identity = suite.identity): PeerClient {
  return scene.peer(new MutualChannelCredentials(own));
}

describe('a connection for blobs', () => {
  it('carries what the protocol says, byte for byte, one blob after the other', async () => {
    await start();
    const { digest } = scene.store.add(1000);
    const socket = await dial();
    // By hand: field 1 is the digest, 2 the offset, 3 the length.
    const text = Buffer.from(digest);
    const body = Buffer.concat([
      Buffer.from([0x0a, text.length]),
      text,
      Buffer.from('107b1805', 'hex'),
    ]);
    socket.write(Buffer.concat([Buffer.from([body.length]), body]));
    const [first] = (await once(socket, 'data')) as [Buffer];
    // 1000 bytes, verified, and then five bytes from 123 on.
    expect(first).toEqual(Buffer.concat([Buffer.from('0508e8071001', 'hex'), made(123, 128)]));

    socket.write(requestOf(digest, 990));
    const { message, rest } = await take(socket, 10);
    expect(message).toMatchObject({ code: 0, sizeBytes: 1000n, verified: true });
    expect(rest).toEqual(made(990, 1000));
  });

  it('brings a blob of any size, and every part of it', async () => {
    await start();
    const client = clientOf();
    const { digest } = scene.store.add(3 * MIB + 5);
    const all = made(0, 3 * MIB + 5);
    expect((await readAll(client, { digest, offsetBytes: 0 })).equals(all)).toBe(true);
    const part = { digest, offsetBytes: MIB - 1, lengthBytes: MIB + 7 };
    expect((await readAll(client, part)).equals(all.subarray(MIB - 1, 2 * MIB + 6))).toBe(true);
    expect(await readAll(client, { digest, offsetBytes: 3 * MIB + 5 })).toHaveLength(0);
    const end = { digest, offsetBytes: MIB, lengthBytes: 64 * MIB };
    expect((await readAll(client, end)).equals(all.subarray(MIB))).toBe(true);
  });

  it('refuses what is not held, not there, or no digest, and stays', async () => {
    await start();
    const { digest } = scene.store.add(10);
    const socket = await dial();
    const codes: number[] = [];
    for (const request of [
      requestOf(digestOf(Buffer.from('other'))),
      requestOf(digest, 11),
      requestOf(digest, -1),
      requestOf('nonsense'),
    ]) {
      socket.write(request);
      const { message } = await take(socket, 0);
      expect(message.message).not.toBe('');
      codes.push(message.code);
    }
    expect(codes).toEqual([
      status.NOT_FOUND,
      status.OUT_OF_RANGE,
      status.INVALID_ARGUMENT,
      status.INVALID_ARGUMENT,
    ]);
    socket.write(requestOf(digest));
    expect((await take(socket, 10)).rest).toEqual(made(0, 10));
  });

  it('leaves nothing behind at its sockets, however often it is used', async () => {
    const warnings: string[] = [];
    const onWarning = ({ name }: Error): void => void warnings.push(name);
    process.on('warning', onWarning);
    await start();
    const socket = await dial();
    for (let n = 0; n < 20; n += 1) {
      socket.write(requestOf('nonsense'));
      await take(socket, 0);
    }
    const client = clientOf();
    const { digest } = scene.store.add(MIB + 1);
    for (let n = 0; n < 20; n += 1) await readAll(client, { digest, offsetBytes: 0 });
    process.off('warning', onWarning);
    expect(accepted).toHaveLength(2);
    expect(warnings).toEqual([]);
  });

  it('is for the roles that may read, and for nobody else', async () => {
    await start();
    const { digest } = scene.store.add(8 * MIB);
    const stranger = clientOf(await issueIdentity(suite.authority, ['bootstrap']));
    await expect(readAll(stranger, { digest, offsetBytes: 0 })).rejects.toMatchObject({
      kind: 'refused',
    });
    expect(await reads('PERMISSION_DENIED')).toBe(1);
    expect(scene.readers.count).toBe(0);
  });

  it('shares its places for readers with calls', async () => {
    await start({ maxReaders: 1 });
    const { digest } = scene.store.add(64 * MIB);
    const client = clientOf();
    const first = client.read({ digest, offsetBytes: 0 }, LIMITS);
    await first[Symbol.asyncIterator]().next();

    await expect(readAll(client, { digest, offsetBytes: 0 })).rejects.toMatchObject({
      kind: 'busy',
    });
    const few = { digest, offsetBytes: 0, lengthBytes: 10 };
    await expect(readAll(client, few)).rejects.toMatchObject({ kind: 'busy' });
    first.cancel();
    await waitFor(() => scene.readers.count === 0, { what: 'a free place' });
    expect(await readAll(client, few)).toEqual(made(0, 10));
  });

  it.each([
    ['is no message', Buffer.from('04ffffffff', 'hex')],
    ['has no length', Buffer.alloc(16, 0xff)],
    ['would be too long', Buffer.from('818001', 'hex')],
    ['is of HTTP/2', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'.padEnd(100))],
  ])('ends after a request that %s', async (_, bytes) => {
    await start();
    const socket = await dial();
    socket.write(bytes);
    const { message } = await take(socket, 0);
    expect(message.code).toBe(status.INVALID_ARGUMENT);
    await once(socket, 'close');
  });

  it('ends when a client says more than it may before it is answered', async () => {
    await start();
    const { digest } = scene.store.add(256 * MIB);
    const socket = await dial();
    socket.write(requestOf(digest));
    await once(socket, 'data');
    socket.pause();
    const many = Buffer.concat(Array.from({ length: 200 }, () => requestOf(digest)));
    socket.write(many);
    await waitFor(() => scene.readers.count === 0, { what: 'the reader gone' });
  });

  it.each([
    ['before its first request', { requestMs: 30 }],
    ['after an answer', { idleMs: 30 }],
  ])('ends when nothing is said %s', async (_, blobs) => {
    await start({ blobs });
    const { digest } = scene.store.add(10);
    const socket = await dial();
    if ('idleMs' in blobs) {
      socket.write(requestOf(digest));
      await take(socket, 10);
    }
    socket.resume();
    await once(socket, 'close');
  });

  it('takes the place of a reader that takes nothing', async () => {
    await start({ readerStallMs: 50 });
    const { digest } = scene.store.add(256 * MIB);
    const socket = await dial();
    socket.write(requestOf(digest));
    await once(socket, 'data');
    socket.pause();
    await waitFor(() => scene.readers.count === 0, { what: 'the reader gone' });
    expect(await reads('ABORTED')).toBe(1);
  });

  it('gives way to calls where the agent knows no such thing, without asking each time', async () => {
    await start({ blobs: 'older' });
    const { digest } = scene.store.add(3 * MIB);
    const client = clientOf();
    const all = made(0, 3 * MIB);
    expect((await readAll(client, { digest, offsetBytes: 0 })).equals(all)).toBe(true);
    const dialled = accepted.length;
    expect((await readAll(client, { digest, offsetBytes: 0 })).equals(all)).toBe(true);
    expect(accepted).toHaveLength(dialled);
  });

  it('serves the next blob too, and is replaced when the agent has ended it', async () => {
    await start({ blobs: { idleMs: 200 } });
    const blobs = Array.from({ length: 3 }, () => scene.store.add(2 * MIB));
    const client = clientOf();
    const read = async ({ digest }: MadeBlob): Promise<void> => {
      expect(await readAll(client, { digest, offsetBytes: 0 })).toHaveLength(2 * MIB);
    };
    await read(blobs[0]!);
    const dialled = accepted.length;
    await read(blobs[1]!);
    expect(accepted).toHaveLength(dialled);
    await waitFor(() => accepted.every(({ destroyed }) => destroyed), { what: 'it ended' });
    await read(blobs[2]!);
  });

  it('ends with the agent: at once where nothing is sent, else behind the last byte', async () => {
    await start();
    const { digest } = scene.store.add(8 * MIB);
    const idle = await dial();
    idle.resume();
    const idleEnded = once(idle, 'close');
    const client = clientOf();
    let bytes = 0;
    let draining: Promise<void> | undefined;
    for await (const { data } of client.read({ digest, offsetBytes: 0 }, LIMITS)) {
      if (draining === undefined) {
        draining = scene.drain();
        await idleEnded;
      }
      bytes += data.length;
    }
    expect(bytes).toBe(8 * MIB);
    await draining;
    expect(accepted.every(({ destroyed }) => destroyed)).toBe(true);
  });

  it('is given up when the agent says nothing', async () => {
    await start();
    const client = new ClientIdentity(suite.identity);
    const connection = new BlobConnection(`127.0.0.1:${scene.port}`, client, { silenceMs: 50 });
    // Nobody has asked for anything, so that nothing comes.
    await expect(connection.next()).rejects.toThrow('not a byte for 50 ms');
    await waitFor(() => accepted.every(({ destroyed }) => destroyed), { what: 'it ended' });
  });

  it('is not made with a certificate that has ended', async () => {
    await start();
    const { digest } = scene.store.add(2 * MIB);
    const ended = await issueIdentity(suite.authority, ['registry'], { validMs: -60_000 });
    await expect(readAll(clientOf(ended), { digest, offsetBytes: 0 })).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('the certificate of this node ended 2') as unknown,
    });
  });

  it('tells of an agent that ends it at once, as one does that does not know the authority', async () => {
    await start();
    const other = await issueIdentity(await createAuthority(), ['registry']);
    const told: string[] = [];
    const mixed = { ...other, ca: suite.identity.ca };
    const client = new ClientIdentity(mixed, { onEarlyEnd: (address) => void told.push(address) });
    const connection = new BlobConnection(`127.0.0.1:${scene.port}`, client);
    await connection.next().catch(() => undefined);
    expect(told).toEqual([`127.0.0.1:${scene.port}`]);
    connection.destroy();
  });
});
