import { once } from 'node:events';
import { connect } from 'node:net';
import { beforeAll, describe, expect, test } from 'vitest';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';
import { createAuthority, issueIdentity } from '../../../../src/rpc/certificates.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { expectOciError } from '../../../support/expect-oci-error.ts';
import { waitFor } from '../../../support/wait.ts';
import { rulesFor } from './bootstrap-scene.ts';
import {
  blobs,
  dayMs,
  filled,
  identities,
  manifests,
  name,
  ns,
  repository,
  type Identities,
} from './filled-scene.ts';

expectNoLeaks();

let { authority, client, server } = {} as Identities;

beforeAll(async () => {
  ({ authority, client, server } = await identities());
});

describe('BootstrapServer', () => {
  test('BootstrapServer gives out an image by tag and by digest, in the bytes of the store', async () => {
    await using node = await filled();
    const { scene, image, index, ask } = node;
    const bytesOf = (digest: Digest) => scene.store.blobsByDigest.get(digest);
    for (const method of ['GET', 'HEAD']) {
      for (const path of [
        manifests('1.0') + ns,
        manifests(index.digest) + ns,
        `/v2/${name}/manifests/1.0`,
      ]) {
        const got = await ask(path, { method });
        expect([got.status, got.headers['docker-content-digest']]).toEqual([200, index.digest]);
        expect(got.headers['content-type']).toBe(MEDIA_TYPE.ociIndex);
        expect(got.headers['content-length']).toBe(String(index.sizeBytes));
        expect(got.headers['salvor-source']).toBe('node/a');
        expect(got.headers['oci-namespace']).toBe(path.endsWith(ns) ? 'registry.test' : undefined);
        expect(got.body).toEqual(method === 'HEAD' ? Buffer.alloc(0) : bytesOf(index.digest));
      }
    }
    const child = await ask(manifests(image.target.digest) + ns);
    expect(child.headers['content-type']).toBe(MEDIA_TYPE.ociManifest);
    for (const { digest, sizeBytes } of [image.config, ...image.layers]) {
      const head = await ask(blobs(digest) + ns, { method: 'HEAD' });
      expect(head.headers['content-length']).toBe(String(sizeBytes));
      const got = await ask(blobs(digest) + ns);
      expect([got.status, got.headers['docker-content-digest']]).toEqual([200, digest]);
      expect(got.headers['content-type']).toBe(MEDIA_TYPE.octetStream);
      expect(got.body).toEqual(bytesOf(digest));
    }
    expect((await ask('/v2/')).status).toBe(200);
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blobs to be closed' });
    expect(await scene.count('blob')).toBe(6);
    expect(await scene.count('manifest')).toBe(7);
  });

  test('BootstrapServer keeps to its repositories, whatever the node has besides', async () => {
    await using node = await filled();
    const { image, foreign, ask } = node;
    const secret = '/v2/team/secret';
    const refused = [
      `${secret}/manifests/1.0${ns}`,
      `${secret}/manifests/${foreign.target.digest}${ns}`,
      `${secret}/blobs/${foreign.config.digest}${ns}`,
      // By the name of one that may be read.
      manifests(foreign.target.digest) + ns,
      blobs(foreign.layers[0]!.digest) + ns,
      blobs(foreign.config.digest) + ns,
      // The same path of another registry, and of none.
      manifests('1.0') + '?ns=other.test',
      manifests('1.0'),
      `/v2/team/nothing/manifests/1.0${ns}`,
      // A manifest is no blob, and a blob no manifest.
      blobs(image.target.digest) + ns,
      manifests(image.config.digest) + ns,
      manifests('2.0') + ns,
      `/v2/_catalog`,
      `/v2/${repository}/tags/list${ns}`,
      `/v2/${repository}/referrers/${image.target.digest}${ns}`,
    ];
    for (const path of refused) {
      for (const method of ['GET', 'HEAD']) {
        const got = await ask(path, { method });
        expect([path, got.status]).toEqual([path, 404]);
        expect(got.body.includes('layer')).toBe(false);
      }
    }
    const unknown = await ask(`/v2/team/nothing/manifests/1.0${ns}`);
    const held = await ask(`${secret}/manifests/1.0${ns}`);
    // Nobody learns which images a node has.
    expect(held.body.toString().replace('secret', 'nothing')).toBe(unknown.body.toString());
  });

  test.each([
    ['online', { access: 'online' }],
    ['observe', { mode: 'observe' }],
    ['bypass', { mode: 'bypass' }],
  ] as const)(
    'BootstrapServer heeds a policy that keeps nodes from answering: %s',
    async (_what, policy) => {
      await using node = await filled({ policies: [{ match: name, ...policy }] });
      const { image, ask } = node;
      expect((await ask(manifests('1.0') + ns)).status).toBe(404);
      expect((await ask(blobs(image.config.digest) + ns)).status).toBe(404);
    },
  );

  test('BootstrapServer heeds registries that are denied', async () => {
    await using node = await filled({ deny: ['*.test'] });
    const { ask } = node;
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
  });

  test('BootstrapServer tells tags only as policy lets nodes tell them', async () => {
    await using node = await filled({ policies: [{ match: name, staleOn: [] }] });
    const { scene, index, ask } = node;
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
    expect((await ask(manifests(index.digest) + ns)).status).toBe(200);
    scene.content.take(
      rulesFor({ repositories: [name], policies: [{ match: name, staleMaxAgeMs: dayMs }] }),
    );
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
    const tag = { ...index, mediaType: MEDIA_TYPE.ociIndex, observedAtMs: scene.clock.now() };
    scene.observations.record(`${name}:1.0`, tag);
    const told = await ask(manifests('1.0') + ns);
    expect(told.status).toBe(200);
    expect(told.headers['salvor-observed-at']).toBe('2026-01-01T00:00:00.000Z');
    scene.clock.advance(dayMs + 1);
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
  });

  test('BootstrapServer never tells an older digest than the upstream confirmed', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    expect((await ask(manifests('1.0') + ns)).status).toBe(200);
    const digest = digestOf(Buffer.from('newer, and not here'));
    const observedAtMs = scene.clock.now();
    const tag = { digest, mediaType: MEDIA_TYPE.ociIndex, sizeBytes: 1, observedAtMs };
    scene.observations.record(`${name}:1.0`, tag);
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
  });

  test('BootstrapServer tells no tag of an image whose config is gone', async () => {
    await using node = await filled();
    const { scene, image, index, ask } = node;
    scene.store.blobsByDigest.delete(image.config.digest);
    expect((await ask(manifests('1.0') + ns)).status).toBe(404);
    expect((await ask(manifests(index.digest) + ns)).status).toBe(200);
  });

  test('BootstrapServer sees what comes and goes while it runs', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const later = scene.store.addManifest('later');
    const path = blobs(later.config.digest) + ns;
    expect((await ask(path)).status).toBe(404);
    scene.store.name(`${name}:2.0`, later.target);
    scene.clock.advance(1000);
    expect((await ask(path)).status).toBe(200);
    scene.store.images.pop();
    scene.clock.advance(5000);
    expect((await ask(path)).status).toBe(404);
  });

  test('BootstrapServer sees what comes after the clock was put back', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const later = scene.store.addManifest('later');
    const path = blobs(later.config.digest) + ns;
    expect((await ask(path)).status).toBe(404);
    scene.store.name(`${name}:2.0`, later.target);
    scene.clock.advance(-3_600_000);
    expect((await ask(path)).status).toBe(200);
  });

  test('BootstrapServer looks through its images once for many questions', async () => {
    await using node = await filled({ maxRequests: 40 });
    const { scene, image, ask } = node;
    let looks = 0;
    const names = scene.store.names.bind(scene.store);
    scene.store.names = (options) => {
      looks += 1;
      return names(options);
    };
    const path = blobs(image.config.digest) + ns;
    const missing = blobs(digestOf(Buffer.from('nothing'))) + ns;
    const all = await Promise.all(
      Array.from({ length: 20 }, (_each, n) => ask(n % 2 === 0 ? path : missing)),
    );
    expect(all.map(({ status }) => status)).toEqual(all.map((_each, n) => (n % 2 ? 404 : 200)));
    expect(looks).toBe(1);
  });
});

describe('BootstrapServer clients', () => {
  test.each([['agent'], ['registry']] as const)(
    'BootstrapServer refuses a certificate for the role %s',
    async (role) => {
      await using node = await filled();
      const { scene, ask } = node;
      const identity = await issueIdentity(authority, [role]);
      for (const path of ['/v2/', manifests('1.0') + ns]) {
        const got = await ask(path, { identity });
        expectOciError(got, { status: 403, code: 'DENIED' });
        expect(got.body.toString()).toContain(`the certificate names ${role}`);
      }
      expect(await scene.count('wrong_role')).toBe(2);
    },
  );

  test('BootstrapServer takes a certificate that names the role beside another', async () => {
    await using node = await filled();
    const { ask } = node;
    const identity = await issueIdentity(authority, ['registry', 'bootstrap']);
    expect((await ask('/v2/', { identity })).status).toBe(200);
  });

  test('BootstrapServer does not speak to clients without a certificate of its authority', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const nowMs = Date.now();
    const stranger = await issueIdentity(await createAuthority(), ['bootstrap']);
    const ended = await issueIdentity(authority, ['bootstrap'], {
      nowMs: nowMs - 2 * dayMs,
      validMs: dayMs,
    });
    const ca = server.ca;
    await expect(ask('/v2/', { identity: undefined })).rejects.toThrow();
    await expect(ask('/v2/', { identity: { ...stranger, ca } })).rejects.toThrow();
    await expect(ask('/v2/', { identity: ended })).rejects.toThrow();
    await waitFor(async () => (await scene.refusals('certificate')) === 2, { what: 'refusals' });
    expect(await scene.refusals('no_certificate')).toBe(1);
    expect(await scene.count('unreadable')).toBe(0);
    expect(scene.logged.map(({ fields }) => fields['why'])).toEqual([
      'it shows no certificate',
      'its certificate is by no authority in tls.ca',
      'its certificate has expired',
    ]);
  });

  test('BootstrapServer lets go of a client whose certificate ends while it is connected', async () => {
    await using node = await filled();
    const { scene } = node;
    const socket = await scene.connect(client);
    const ask = async (): Promise<string> => {
      socket.write('GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n');
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      return chunk.toString();
    };
    expect(await ask()).toMatch(/^HTTP\/1.1 200 /);
    scene.clock.advance(Date.now() - scene.clock.now() + 366 * dayMs);
    expect(await ask()).toMatch(/^HTTP\/1.1 403 /);
    await once(socket, 'close');
    expect(await scene.count('expired')).toBe(1);
  });

  test('BootstrapServer takes over another identity without a restart', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const next = await createAuthority();
    const identity = await issueIdentity(next, ['bootstrap']);
    await expect(ask('/v2/', { identity })).rejects.toThrow();
    scene.identity.renew(await issueIdentity(next, ['agent']));
    expect((await ask('/v2/', { identity })).status).toBe(200);
    await expect(ask('/v2/')).rejects.toThrow();
    expect(() => scene.identity.renew({ ...client, key: Buffer.from('none') })).toThrow();
    expect((await ask('/v2/', { identity })).status).toBe(200);
  });

  test('BootstrapServer is not kept busy by those who show no certificate', async () => {
    await using node = await filled({ maxHandshakes: 2 });
    const { scene, ask } = node;
    const silent = Array.from({ length: 5 }, () =>
      connect({ host: '127.0.0.1', port: scene.port }),
    );
    for (const socket of silent) socket.on('error', () => undefined);
    await waitFor(async () => (await scene.refusals('crowd')) >= 3, { what: 'too many of them' });
    expect((await ask('/v2/')).status).toBe(200);
    for (const socket of silent) socket.destroy();
  });

  test('BootstrapServer does not wait in the end for those who show no certificate', async () => {
    await using node = await filled();
    const { scene, ask } = node;
    const silent = connect({ host: '127.0.0.1', port: scene.port });
    silent.on('error', () => undefined);
    await once(silent, 'connect');
    // Connections are accepted in the order in which they come.
    expect((await ask('/v2/')).status).toBe(200);
    await scene.server.close({ signal: AbortSignal.abort() });
    // Else it was its time for TLS that ended it.
    expect(await scene.refusals('slow')).toBe(0);
    silent.destroy();
  });

  test('BootstrapServer speaks TLS 1.3 alone', async () => {
    await using node = await filled();
    const { scene } = node;
    const socket = await scene.connect(client);
    expect(socket.getProtocol()).toBe('TLSv1.3');
    socket.destroy();
    const tls = await import('node:tls');
    const old = tls.connect({
      host: '127.0.0.1',
      port: scene.port,
      ca: server.ca,
      cert: client.certificate,
      key: client.key,
      maxVersion: 'TLSv1.2',
    });
    const [error] = (await once(old, 'error')) as [Error];
    expect(error.message).toMatch(/protocol version/);
  });
});
