import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { credentials } from '@grpc/grpc-js';
import { beforeAll, describe, expect, it } from 'vitest';
import type { PeerMethod } from '../../src/agent/caller-roles.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { AgentClient } from '../../src/rpc/agent-client.ts';
import type { AgentError } from '../../src/rpc/agent-error.ts';
import type { HeldPart } from '../../src/rpc/agent-protocol.ts';
import { createAuthority, issueIdentity, type Authority } from '../../src/rpc/certificates.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import type { Role } from '../../src/rpc/identity.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import { AgentScene, CHUNK_BYTES, PROOF } from './agent-scene.ts';
import { agentSuite } from './agent-suite.ts';

const LIMITS = { timeoutMs: 5000 };
const MIB = 1024 * 1024;

/** What the kernel lets one direction of a TCP connection hold at most, bytes: tcp(7). */
async function maxSocketBytes(kind: 'rmem' | 'wmem'): Promise<number> {
  const text = await readFile(`/proc/sys/net/ipv4/tcp_${kind}`, 'utf8');
  return Number(text.trim().split(/\s+/)[2]);
}

expectNoLeaks();

const suite = agentSuite();
const { start } = suite;
let stranger: Authority;

beforeAll(async () => {
  stranger = await createAuthority();
});

async function peerAs(scene: AgentScene, roles: readonly Role[]): Promise<AgentClient> {
  return scene.peer(new MutualChannelCredentials(await issueIdentity(suite.authority, roles)));
}

/** Reads a stream to its end; how many bytes came. */
async function readAll(stream: ReturnType<AgentClient['read']>): Promise<number> {
  let bytes = 0;
  for await (const { data } of stream) bytes += data.length;
  return bytes;
}

async function listAll(client: AgentClient): Promise<HeldPart[]> {
  const parts: HeldPart[] = [];
  for await (const part of client.list(LIMITS)) parts.push(part);
  return parts;
}

const anyProcess: Role[] = ['agent', 'registry'];
const allowed: Readonly<Record<PeerMethod, readonly Role[]>> = {
  stat: anyProcess,
  read: anyProcess,
  reportCorrupt: anyProcess,
  resolve: ['agent'],
  list: ['agent'],
  inventory: ['agent'],
  reach: ['agent'],
};

/** One call of each method. */
const calls: Readonly<
  Record<PeerMethod, (client: AgentClient, scene: AgentScene) => Promise<unknown>>
> = {
  stat: (client, scene) => client.stat(scene.store.add(1).digest, LIMITS),
  read: (client, scene) =>
    readAll(client.read({ digest: scene.store.add(1).digest, offsetBytes: 0 }, LIMITS)),
  resolve: (client) => client.resolve('registry.test/a:held', LIMITS),
  reportCorrupt: (client, scene) => client.reportCorrupt(scene.store.add(1).digest, LIMITS),
  list: (client) => listAll(client),
  inventory: (client) => client.inventory(LIMITS),
  reach: (client) => client.reach([], LIMITS),
};

describe('Peer over mutual TLS', () => {
  it.each(Object.keys(calls) as PeerMethod[])(
    'Peer answers %s to the roles that may call it and to no other',
    async (method) => {
      const scene = await start();
      const all = [['agent'], ['registry'], ['agent', 'registry'], ['bootstrap'], []] as Role[][];
      for (const roles of all) {
        const client = await peerAs(scene, roles);
        const outcome = await calls[method](client, scene).then(
          () => 'answered',
          (error: unknown) => (error as AgentError).kind,
        );
        const isAllowed = roles.some((role) => allowed[method].includes(role));
        expect([method, roles, outcome]).toEqual([
          method,
          roles,
          isAllowed ? 'answered' : 'refused',
        ]);
      }
    },
  );

  it('Peer tells which of its members it can ask, and how pulls went', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['agent']);
    const reach = await client.reach([], LIMITS);
    expect(reach).toMatchObject({ node: 'me', pullsSeen: 3, pullsBypassed: 1 });
    expect(Math.abs(reach.atMs - Date.now())).toBeLessThan(60_000);
    expect(reach.members).toEqual([
      { node: 'gone', address: '127.0.0.1:9', failure: 'Cannot ask gone' },
    ]);
    expect((await client.reach(['stranger'], LIMITS)).members).toEqual([]);
  });

  it('Peer lists what it holds, in several messages, and what its names point at', async () => {
    const scene = await start();
    const added = Array.from({ length: 1200 }, (_, index) => scene.store.add(index));
    const client = await peerAs(scene, ['agent']);
    const parts = await listAll(client);
    expect(parts.length).toBeGreaterThan(2);
    expect(parts.flatMap(({ blobs }) => blobs)).toEqual(
      added.map(({ digest, sizeBytes }) => ({ digest, sizeBytes })),
    );
    expect(parts.flatMap(({ named }) => named)).toEqual([added[0]?.digest]);
  });

  it('Peer is no Local: what the own registry may do no other node may', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['agent', 'registry']);
    const { digest } = scene.store.add(1);
    const unimplemented = { kind: 'unimplemented', cause: { code: 12 } };
    await expect(client.locate({ digest }, LIMITS).next()).rejects.toMatchObject(unimplemented);
    await expect(client.abortIngest(digest, LIMITS)).rejects.toMatchObject(unimplemented);
    const notice = { digest, images: [] };
    await expect(client.keep(notice, LIMITS)).rejects.toMatchObject(unimplemented);
    const tag = { digest, mediaType: 'a/b', sizeBytes: 1, observedAtMs: 1 };
    await expect(client.observe('registry.test/a:1', tag, LIMITS)).rejects.toMatchObject(
      unimplemented,
    );
    const proof = { ...PROOF, endedAtMs: 1 };
    await expect(client.recordProof(proof, LIMITS)).rejects.toMatchObject(unimplemented);
    const ended = Promise.withResolvers<unknown>();
    client.watch({ pid: process.pid, timeoutMs: 200, processStart: '1' }, { onEnd: ended.resolve });
    expect(await ended.promise).toMatchObject(unimplemented);
    const done = [scene.store.aborted, scene.killed, scene.proofs, scene.notices];
    expect(done).toEqual([[], [], [], []]);
  });

  it('Peer refuses a client of another authority', async () => {
    const scene = await start();
    const other = await issueIdentity(stranger, ['agent']);
    // It trusts the server: the refusal is the server's own.
    const client = scene.peer(new MutualChannelCredentials({ ...other, ca: suite.identity.ca }));
    await expect(client.stat(scene.store.add(1).digest, LIMITS)).rejects.toMatchObject({
      kind: 'unavailable',
    });
  });

  it('Peer refuses a client without a certificate', async () => {
    const scene = await start();
    const client = scene.peer(
      credentials.createSsl(suite.identity.ca, null, null, {
        checkServerIdentity: () => undefined,
      }),
    );
    await expect(client.stat(scene.store.add(1).digest, LIMITS)).rejects.toMatchObject({
      kind: 'unavailable',
    });
    const plain = scene.peer(credentials.createInsecure());
    await expect(plain.stat(scene.store.add(1).digest, LIMITS)).rejects.toMatchObject({
      kind: 'unavailable',
    });
  });

  it('Peer talks TLS 1.3 and nothing older', async () => {
    const scene = await start();
    const identity = await issueIdentity(suite.authority, ['agent']);
    const options = {
      host: '127.0.0.1',
      port: scene.port,
      ca: identity.ca,
      cert: identity.certificate,
      key: identity.key,
      servername: 'agent.salvor.internal',
      ALPNProtocols: ['h2'],
    };
    await expect(handshake({ ...options, maxVersion: 'TLSv1.2' })).rejects.toThrow(/version/i);
    expect(await handshake(options)).toBe('TLSv1.3');
  });

  it('AgentClient refuses a server of another authority, or one that is no agent', async () => {
    const client = await issueIdentity(suite.authority, ['registry']);
    for (const identity of [
      // It trusts our authority, so that the refusal is the client's own.
      { ...(await issueIdentity(stranger, ['agent'])), ca: suite.identity.ca },
      await issueIdentity(suite.authority, ['registry']),
      await issueIdentity(suite.authority, []),
    ]) {
      const scene = await start({ identity });
      const peer = scene.peer(new MutualChannelCredentials(client));
      await expect(peer.stat(scene.store.add(1).digest, LIMITS)).rejects.toMatchObject({
        kind: 'unavailable',
      });
    }
  });

  it('Peer refuses a certificate that has expired', async () => {
    const scene = await start();
    const expired = await issueIdentity(suite.authority, ['agent'], { validMs: -60_000 });
    await expect(
      scene.peer(new MutualChannelCredentials(expired)).stat(scene.store.add(1).digest, LIMITS),
    ).rejects.toMatchObject({ kind: 'unavailable' });
  });
});

describe('Peer.Read', () => {
  it('Peer.Read gives the bytes from an offset, and the size of the whole first', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['registry']);
    const blob = scene.store.add(3 * MIB + 5);
    const { digest, sizeBytes } = blob;
    expect(await readAll(client.read({ digest, offsetBytes: 0 }, LIMITS))).toBe(sizeBytes);
    expect(await readAll(client.read({ digest, offsetBytes: sizeBytes - 5 }, LIMITS))).toBe(5);
    const part = { digest, offsetBytes: 10, lengthBytes: 100_000 };
    expect(await readAll(client.read(part, LIMITS))).toBe(100_000);
    for await (const frame of client.read({ digest, offsetBytes: sizeBytes }, LIMITS)) {
      expect(frame).toMatchObject({ sizeBytes, verified: true });
      expect(frame.data.length).toBe(0);
    }
    await waitFor(() => scene.readers.count === 0);
    expect(blob.closed).toBe(blob.opened);
  });

  it.each([
    ['an offset behind the end', { offsetBytes: 11 }, 'invalid'],
    [
      'a blob that is not held',
      { digest: digestOf(Buffer.from('no')), offsetBytes: 0 },
      'not_held',
    ],
    ['a digest that is none', { digest: 'sha256:x', offsetBytes: 0 }, 'invalid'],
    ['a negative offset', { offsetBytes: -1 }, 'invalid'],
    ['a negative length', { offsetBytes: 0, lengthBytes: -1 }, 'invalid'],
  ])('Peer.Read refuses %s', async (_, request, kind) => {
    const scene = await start();
    const client = await peerAs(scene, ['registry']);
    const blob = scene.store.add(10);
    const stream = client.read({ digest: blob.digest, ...request } as never, LIMITS);
    await expect(readAll(stream)).rejects.toMatchObject({ name: 'AgentError', kind });
    await waitFor(() => scene.readers.count === 0);
    expect(blob.closed).toBe(blob.opened);
    // What others send wrong is no error of this node.
    expect(scene.logged).toEqual([]);
  });

  it('Peer.Read has room for so many readers and refuses the next at once', async () => {
    const scene = await start({ maxReaders: 2 });
    const client = await peerAs(scene, ['registry']);
    const blob = scene.store.add(64 * MIB);
    const read = () => client.read({ digest: blob.digest, offsetBytes: 0 }, LIMITS);
    const readers = [read(), read()];
    const iterators = readers.map((reader) => reader[Symbol.asyncIterator]());
    await Promise.all(iterators.map((iterator) => iterator.next()));
    expect(await client.stat(blob.digest, LIMITS)).toMatchObject({ busy: true });
    await expect(readAll(read())).rejects.toMatchObject({ kind: 'busy' });
    readers[0]!.cancel();
    await waitFor(() => scene.readers.count === 1);
    expect(await client.stat(blob.digest, LIMITS)).toMatchObject({ busy: false });
    const third = read();
    expect((await third[Symbol.asyncIterator]().next()).done).toBe(false);
    for (const reader of [...readers, third]) reader.cancel();
    await waitFor(() => scene.readers.count === 0 && blob.closed === blob.opened);
  });

  it.each(['cancel', 'signal', 'early return'] as const)(
    'Peer.Read lets go of file and slot when its reader leaves by %s',
    async (how) => {
      const scene = await start();
      const client = await peerAs(scene, ['registry']);
      const blob = scene.store.add(64 * MIB);
      const leaving = new AbortController();
      const stream = client.read(
        { digest: blob.digest, offsetBytes: 0 },
        { ...LIMITS, signal: leaving.signal },
      );
      const leave = {
        cancel: () => stream.cancel(),
        signal: () => leaving.abort(),
        'early return': () => undefined,
      };
      const outcome = (async () => {
        for await (const { data } of stream) {
          expect(data.length).toBeGreaterThan(0);
          leave[how]();
          if (how === 'early return') break;
        }
      })();
      await outcome.catch((error: unknown) => expect(error).toMatchObject({ kind: 'cancelled' }));
      await waitFor(() => scene.readers.count === 0 && blob.closed === 1);
      expect(blob.readBytes).toBeLessThan(64 * MIB);
    },
  );

  it('AgentClient lets a stream come to its end although it is closed', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['registry']);
    const { digest } = scene.store.add(8 * MIB);
    let bytes = 0;
    for await (const { data } of client.read({ digest, offsetBytes: 0 }, LIMITS)) {
      if (bytes === 0) client.close();
      bytes += data.length;
    }
    expect(bytes).toBe(8 * MIB);
    await expect(client.stat(digest, LIMITS)).rejects.toMatchObject({ name: 'AgentError' });
  });

  it('Peer.Read does not read ahead of a slow reader', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['registry']);
    const blob = scene.store.add(256 * MIB);
    const stream = client.read({ digest: blob.digest, offsetBytes: 0 }, { timeoutMs: 20_000 });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    // Nothing more is read once all buffers are full, however long the reader takes.
    let before = -1;
    await waitFor(
      () => {
        const isStill = blob.readBytes === before;
        before = blob.readBytes;
        return isStill;
      },
      { what: 'the sender to stand still' },
    );
    // What both ends hold, and the kernel between them.
    const kernel = (await maxSocketBytes('wmem')) + (await maxSocketBytes('rmem'));
    expect(blob.readBytes).toBeLessThan(2 * CHUNK_BYTES + kernel + 2 * MIB);
    expect(kernel).toBeLessThan(128 * MIB);
    stream.cancel();
    await waitFor(() => blob.closed === 1);
  });

  it('Peer.Read ends what is left of it when the server closes', async () => {
    const scene = await start();
    const client = await peerAs(scene, ['registry']);
    const blob = scene.store.add(256 * MIB);
    const reading = (async () => {
      for await (const { data } of client.read({ digest: blob.digest, offsetBytes: 0 }, LIMITS)) {
        if (data.length > 0) await scene[Symbol.asyncDispose]();
      }
    })();
    await expect(reading).rejects.toMatchObject({ name: 'AgentError' });
    await waitFor(() => scene.readers.count === 0 && blob.closed === 1);
  });
});

async function handshake(options: ConnectionOptions): Promise<string | null> {
  const socket = connectTls(options);
  try {
    await once(socket, 'secureConnect');
    return socket.getProtocol();
  } finally {
    socket.destroy();
  }
}
