import { once } from 'node:events';
import { beforeAll, describe, expect, test } from 'vitest';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { expectOciError } from '../../../support/expect-oci-error.ts';
import { waitFor } from '../../../support/wait.ts';
import type { Identity } from '../../../../src/rpc/identity.ts';
import { CHUNK_BYTES } from './bootstrap-scene.ts';
import { addLayer, blobs, filled, identities, manifests, ns, repository } from './filled-scene.ts';

expectNoLeaks();

let client: Identity;

beforeAll(async () => {
  ({ client } = await identities());
});

describe('BootstrapServer requests', () => {
  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])(
    'BootstrapServer refuses %s',
    async (method) => {
      await using node = await filled();
      const { scene, ask } = node;
      for (const path of [manifests('1.0') + ns, `/v2/${repository}/blobs/uploads/${ns}`]) {
        const got = await ask(path, { method, ...(method === 'PUT' && { body: '{}' }) });
        expectOciError(got, { status: 405, code: 'UNSUPPORTED' });
        expect(got.headers.allow).toBe('GET, HEAD');
      }
      expect(scene.store.counts.opens).toBe(0);
    },
  );

  test.each([
    '/',
    '/v1/',
    '/v2/../etc/passwd',
    `/v2/team/../${repository}/manifests/1.0${ns}`,
    `/v2/team%2fsalvor/manifests/1.0${ns}`,
    `/v2/${repository}/blobs/sha256:..%2f..${ns}`,
    `/v2/${repository}/blobs/sha256:${'0'.repeat(63)}${ns}`,
    `/v2/${repository}/manifests/1.0?ns=registry.test&ns=other.test`,
    `/v2/${repository}/manifests/1.0?ns=registry.test/team`,
    `/v2/${repository}%00/manifests/1.0${ns}`,
  ])('BootstrapServer opens nothing for %s', async (path) => {
    await using node = await filled();
    const { scene, ask } = node;
    const got = await ask(path);
    expect([400, 404]).toContain(got.status);
    expect((JSON.parse(got.body.toString()) as { errors: unknown[] }).errors).toHaveLength(1);
    expect(scene.store.counts.opens).toBe(0);
  });

  test('BootstrapServer opens nothing for a path that is too long', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const got = await ask(manifests('a'.repeat(5000)) + ns);
    expectOciError(got, { status: 400, code: 'NAME_INVALID' });
    expect(scene.store.counts.opens).toBe(0);
  });

  test('BootstrapServer gives single ranges of blobs', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const bytes = Buffer.from(Array.from({ length: 3 * CHUNK_BYTES + 5 }, (_each, n) => n % 251));
    const path = blobs(addLayer(scene, bytes)) + ns;
    const size = bytes.length;
    for (const [range, start, end] of [
      ['bytes=0-0', 0, 0],
      ['bytes=5-', 5, size - 1],
      ['bytes=-7', size - 7, size - 1],
      [`bytes=${CHUNK_BYTES - 1}-${2 * CHUNK_BYTES}`, CHUNK_BYTES - 1, 2 * CHUNK_BYTES],
      [`bytes=10-${size + 100}`, 10, size - 1],
    ] as const) {
      const got = await ask(path, { headers: { range } });
      expect([range, got.status]).toEqual([range, 206]);
      expect(got.headers['content-range']).toBe(`bytes ${start}-${end}/${size}`);
      expect(got.headers['content-length']).toBe(String(end - start + 1));
      expect(got.body.equals(bytes.subarray(start, end + 1))).toBe(true);
    }
    for (const range of [`bytes=${size}-`, 'bytes=5-1', 'bytes=-0']) {
      const got = await ask(path, { headers: { range } });
      expect([range, got.status]).toEqual([range, 416]);
    }
    for (const range of ['bytes=0-1,3-4', 'pages=1-2', 'bytes=x']) {
      const got = await ask(path, { headers: { range } });
      expect([range, got.status, got.body.length]).toEqual([range, 200, size]);
    }
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blobs to be closed' });
  });

  test('BootstrapServer answers so many at a time, and tells the others when to come again', async () => {
    await using node = await filled({ maxRequests: 2 });
    const { scene, image, ask } = node;
    const gate = Promise.withResolvers<undefined>();
    expect((await ask(manifests('1.0') + ns)).status).toBe(200);
    scene.store.gate = gate.promise;
    const path = blobs(image.layers[0]!.digest) + ns;
    const held = [ask(path), ask(path)];
    await waitFor(() => scene.store.openBlobs === 2, { what: 'two readers' });
    const third = await ask(path);
    expectOciError(third, { status: 503, code: 'UNAVAILABLE' });
    expect(third.headers['retry-after']).toBe('1');
    gate.resolve(undefined);
    expect((await Promise.all(held)).map(({ status }) => status)).toEqual([200, 200]);
    expect((await ask(path)).status).toBe(200);
    expect(await scene.count('busy')).toBe(1);
  });

  test('BootstrapServer says that a store is away, which is not that it has nothing', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    scene.store.isAway = true;
    const got = await ask(manifests('1.0') + ns);
    expect([got.status, got.headers['retry-after']]).toEqual([503, '1']);
    scene.store.isAway = false;
    expect((await ask(manifests('1.0') + ns)).status).toBe(200);
    expect(await scene.count('store')).toBe(1);
  });

  test('BootstrapServer answers what is no HTTP', async () => {
    await using node = await filled();
    const { scene } = node;
    const socket = await scene.connect(client);
    socket.write('NONSENSE\r\n\r\n');
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1.1 400 /);
    await once(socket, 'close');
    expect(await scene.count('unreadable')).toBe(1);
  });

  test('BootstrapServer writes one line for each request, without what is pulled in metrics', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    await ask(manifests('1.0') + ns);
    const [line] = scene.logged;
    expect(line?.fields).toMatchObject({ method: 'GET', status: 200, result: 'manifest' });
    expect(line?.fields['url']).toBe(manifests('1.0') + ns);
    expect(line?.fields['certificate']).toMatch(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
    expect(await scene.register.metrics()).not.toContain('team/salvor');
  });
});

describe('BootstrapServer bodies', () => {
  test('BootstrapServer does not complete a blob whose bytes are wrong', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const bytes = Buffer.alloc(4 * CHUNK_BYTES, 'x');
    const digest = addLayer(scene, bytes);
    const path = blobs(digest) + ns;
    scene.unverified.add(digest);
    expect((await ask(path)).body.equals(bytes)).toBe(true);
    const wrong = Buffer.from(bytes);
    wrong[7] = 0;
    scene.store.blobsByDigest.set(digest, wrong);
    await expect(ask(path)).rejects.toThrow(/ECONNRESET|aborted/);
    await waitFor(async () => (await scene.count('wrong_bytes')) === 1, { what: 'the verdict' });
    expect(scene.rechecked).toEqual([digest]);
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blobs to be closed' });
  });

  test('BootstrapServer tells no manifest whose bytes are wrong', async () => {
    await using node = await filled();
    const { scene, index, ask } = node;
    const path = manifests(index.digest) + ns;
    expect((await ask(path)).status).toBe(200);
    scene.store.blobsByDigest.set(index.digest, Buffer.alloc(index.sizeBytes, '{'));
    expect((await ask(path)).status).toBe(404);
    expect(scene.rechecked).toEqual([index.digest]);
  });

  test('BootstrapServer drops a client that takes nothing, and its place is free again', async () => {
    await using node = await filled({ maxRequests: 1, clientStallMs: 50 });
    const { scene, ask } = node;
    const path = blobs(addLayer(scene, Buffer.alloc(64 * 1024 * 1024))) + ns;
    const socket = await scene.connect(client);
    socket.pause();
    socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
    await waitFor(async () => (await scene.count('client_stalled')) === 1, {
      what: 'the end of it',
    });
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blob to be closed' });
    expect((await ask('/v2/')).status).toBe(200);
    socket.destroy();
  });

  test('BootstrapServer lets go of a blob when its client has gone', async () => {
    await using node = await filled();
    const { scene } = node;
    const path = blobs(addLayer(scene, Buffer.alloc(64 * 1024 * 1024))) + ns;
    const socket = await scene.connect(client);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
    await once(socket, 'data');
    socket.destroy();
    await waitFor(async () => (await scene.count('client_gone')) === 1, { what: 'the end of it' });
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blob to be closed' });
  });

  test('BootstrapServer lets running answers end when it stops, and takes no new ones', async () => {
    const { scene, image, ask } = await filled();
    const gate = Promise.withResolvers<undefined>();
    expect((await ask(manifests('1.0') + ns)).status).toBe(200);
    const idle = await scene.connect(client);
    idle.write('GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n');
    await once(idle, 'data');
    const unused = await scene.connect(client);
    unused.resume();
    scene.store.gate = gate.promise;
    const { digest, sizeBytes } = image.layers[0]!;
    const running = ask(blobs(digest) + ns);
    await waitFor(() => scene.store.openBlobs === 1, { what: 'a reader' });
    const closed = scene.server.close({ signal: new AbortController().signal });
    await Promise.all([once(idle, 'close'), once(unused, 'close')]);
    await expect(ask('/v2/')).rejects.toThrow('ECONNREFUSED');
    gate.resolve(undefined);
    expect((await running).body).toHaveLength(sizeBytes);
    await closed;
  });

  test('BootstrapServer cuts what still runs when its time is over', async () => {
    const { scene } = await filled();
    const path = blobs(addLayer(scene, Buffer.alloc(64 * 1024 * 1024))) + ns;
    const socket = await scene.connect(client);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
    await once(socket, 'data');
    socket.pause();
    const time = new AbortController();
    const closed = scene.server.close({ signal: time.signal });
    time.abort();
    await closed;
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blob to be closed' });
    socket.destroy();
  });
});
