import { describe, expect, it } from 'vitest';
import { errorAnswer } from '../../../src/registry/answer.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';
import { FakeBody } from './fake-body.ts';
import { RawClient } from './raw-client.ts';
import {
  blobPath,
  connect,
  content,
  digest,
  errorCode,
  logged,
  manifestPath,
  start,
  streamed,
  whole,
} from './registry-server-scene.ts';

expectNoLeaks();

describe('RegistryServer', () => {
  it('RegistryServer answers GET with exactly the headers and the body of the answer', async () => {
    const { port } = await start();
    const client = await connect(port);
    client.get(manifestPath);
    const { status, headers, body } = await client.answer();
    expect([status, body]).toEqual([200, content]);
    expect(headers).toMatchObject({
      'content-type': 'a/b',
      'content-length': String(content.length),
      'docker-distribution-api-version': 'registry/2.0',
    });
    expect(headers).not.toHaveProperty('content-encoding');
    expect(headers).not.toHaveProperty('transfer-encoding');
  });

  it('RegistryServer answers HEAD with the same headers and no body', async () => {
    const { port } = await start();
    const client = await connect(port);
    for (const path of [manifestPath, blobPath, '/v2/', '/v2/a/manifests/UP%zz', '/nothing']) {
      client.send(`HEAD ${path} HTTP/1.1\r\nHost: m\r\n\r\n`);
      const head = await client.answer({ isHead: true });
      client.get(path);
      const get = await client.answer();
      expect(head.status).toBe(get.status);
      expect(head.headers['content-length']).toBe(String(get.body.length));
      expect(head.headers['content-type']).toBe(get.headers['content-type']);
      expect(client.received.length).toBe(0);
    }
  });

  it('RegistryServer answers the base of the API', async () => {
    const { port } = await start({ defaultUpstream: '' });
    const client = await connect(port);
    client.get('/v2/');
    expect(await client.answer()).toMatchObject({ status: 200, body: Buffer.from('{}') });
  });

  it('RegistryServer refuses every method that would write, and reads on after it', async () => {
    const { port } = await start();
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND']) {
      const client = await connect(port);
      client.send(`${method} ${manifestPath} HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n`);
      const { status, headers, body } = await client.answer();
      expect([status, headers['allow'], errorCode(body)]).toEqual([
        405,
        'GET, HEAD',
        'UNSUPPORTED',
      ]);
      client.get(manifestPath);
      expect((await client.answer()).status).toBe(200);
    }
  });

  it('RegistryServer takes no body for the next request', async () => {
    const { port } = await start();
    const smuggled = 'GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n';
    for (const framing of [
      `Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
      `Transfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
    ]) {
      const client = await connect(port);
      client.send(`PUT ${manifestPath} HTTP/1.1\r\nHost: m\r\n${framing}`);
      expect((await client.answer()).status).toBe(405);
      await client.untilEnded();
      expect(client.text).toBe('');
    }
  });

  it.each([
    ['/v2/UPPER/manifests/1', 400, 'NAME_INVALID'],
    ['/v2/a/manifests/%zz', 400, 'NAME_INVALID'],
    ['/v2/a/manifests/sha256:short', 400, 'DIGEST_INVALID'],
    ['/v2/a/blobs/sha256:short', 400, 'DIGEST_INVALID'],
    ['/v2/a/manifests/1?ns=%20', 400, 'NAME_INVALID'],
    ['/v2/../etc/manifests/1', 400, 'NAME_INVALID'],
    ['http://other.test/v2/a/manifests/1', 404, 'UNSUPPORTED'],
    ['/healthz', 404, 'UNSUPPORTED'],
    ['/v2/a/tags/list', 404, 'UNSUPPORTED'],
    ['/v2/_catalog', 404, 'UNSUPPORTED'],
    [`/v2/a/referrers/${digest}`, 404, 'UNSUPPORTED'],
    ['/v2/a/manifests/1?ns=elsewhere.example', 404, 'NAME_UNKNOWN'],
    ['/v2/elsewhere.example/a/manifests/1', 404, 'NAME_UNKNOWN'],
  ])('RegistryServer answers %s with %i and an OCI error', async (path, status, code) => {
    const { port } = await start();
    const client = await connect(port);
    client.get(path);
    const answer = await client.answer();
    expect(answer.headers['content-type']).toMatch(/^application\/json/);
    expect([answer.status, errorCode(answer.body)]).toEqual([status, code]);
    // The connection is as good as before.
    client.get('/v2/');
    expect((await client.answer()).status).toBe(200);
  });

  it('RegistryServer refuses requests that name no registry where there is no default', async () => {
    const { port } = await start({ defaultUpstream: '' });
    const client = await connect(port);
    client.get(manifestPath);
    const { status, body } = await client.answer();
    expect([status, errorCode(body)]).toEqual([404, 'NAME_UNKNOWN']);
  });

  it('RegistryServer takes the registry from ns, the path or the default, and echoes ns', async () => {
    const seen: string[] = [];
    const { port } = await start({
      manifest: async ({ upstream, repository }) => {
        seen.push(`${upstream.name} ${repository}`);
        return whole(content);
      },
    });
    const client = await connect(port);
    client.get('/v2/a/b/manifests/1?ns=one.test');
    expect((await client.answer()).headers['oci-namespace']).toBe('one.test');
    client.get('/v2/two.test/a/manifests/1');
    expect((await client.answer()).headers).not.toHaveProperty('oci-namespace');
    client.get('/v2/a/manifests/1');
    await client.answer();
    expect(seen).toEqual(['one.test a/b', 'two.test a', 'registry.test a']);
  });

  it('RegistryServer hands on what a pull needs and no other header', async () => {
    let seen: PullRequest | undefined;
    const { port } = await start({
      manifest: async (request) => {
        seen = request;
        return whole(content);
      },
    });
    const client = await connect(port);
    client.get(manifestPath, 'Accept: a/b\r\nAuthorization: Basic eDp5\r\nUser-Agent: c/1\r\n');
    await client.answer();
    expect(seen).toMatchObject({
      method: 'GET',
      accept: 'a/b',
      authorization: 'Basic eDp5',
      userAgent: 'c/1',
      range: undefined,
    });
    expect(Object.keys(seen!).sort()).toEqual(
      'accept authorization lease method policy range repository signal trace upstream userAgent'.split(
        ' ',
      ),
    );
  });

  it('RegistryServer answers headers that are too large with 431', async () => {
    const { port } = await start();
    const client = await connect(port);
    client.get(manifestPath, `X-Long: ${'x'.repeat(8000)}\r\n`);
    await client.untilEnded();
    expect(client.text).toMatch(/^HTTP\/1\.1 431 /);
  });

  it('RegistryServer answers what is no HTTP with 400 and goes on with others', async () => {
    const { port } = await start();
    const client = await connect(port);
    client.send('\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n');
    await client.untilEnded();
    expect(client.text).toMatch(/^HTTP\/1\.1 400 /);
    const other = await connect(port);
    other.get('/v2/');
    expect((await other.answer()).status).toBe(200);
  });

  it('RegistryServer lets a client go that is too slow with its headers', async () => {
    const { port } = await start({ requestTimeoutMs: 100 });
    const [silent, slow] = [await connect(port), await connect(port)];
    slow.send('GET /v2/ HTTP/1.1\r\nHost: m\r\nX-Half: ');
    await Promise.all([silent.untilEnded(), slow.untilEnded()]);
    expect(slow.text).toMatch(/^HTTP\/1\.1 408 /);
  });

  it('RegistryServer keeps the connection after errors and refusals', async () => {
    const { port } = await start({
      manifest: async () =>
        errorAnswer(503, { code: 'UNAVAILABLE', message: 'down' }, { decision: 'unavailable' }),
    });
    const client = await connect(port);
    for (let round = 0; round < 5; round += 1) {
      client.get(manifestPath);
      const { status, headers } = await client.answer();
      expect(status).toBe(503);
      expect(headers['connection']).not.toBe('close');
    }
  });

  it('RegistryServer answers 503 at once when too many requests are in flight', async () => {
    const body = new FakeBody({ sizeBytes: 4 });
    const { port } = await start({ maxStreams: 1, blob: async () => streamed(body) });
    const [first, second] = [await connect(port), await connect(port)];
    first.get(blobPath);
    body.push(Buffer.from('ab'));
    await first.until(({ text }) => text.endsWith('ab'));
    // The headers of the first are out, but its body is not.
    second.get(manifestPath);
    const busy = await second.answer();
    expect([busy.status, busy.headers['retry-after'], errorCode(busy.body)]).toEqual([
      503,
      '1',
      'UNAVAILABLE',
    ]);
    body.push(Buffer.from('cd'));
    body.end();
    expect((await first.answer()).body.toString()).toBe('abcd');
    second.get(manifestPath);
    expect((await second.answer()).status).toBe(200);
  });

  it('RegistryServer answers while somebody holds more connections than there are places', async () => {
    const { port } = await start();
    const silent = await Promise.all(Array.from({ length: 100 }, () => connect(port)));
    await waitFor(() => silent.filter(({ end }) => end === 'open').length === 64, {
      what: 'all but 64 to be ended',
    });

    const client = await connect(port);
    client.get(blobPath);
    expect((await client.answer()).status).toBe(200);
  });

  it('RegistryServer cancels the source when the client leaves, and frees its slot', async () => {
    const body = new FakeBody({ sizeBytes: 1000 });
    let signal: AbortSignal | undefined;
    const { port } = await start({
      maxStreams: 1,
      blob: async (request) => {
        signal = request.signal;
        // What a source does whose signal aborts.
        request.signal.addEventListener('abort', () => body.cancel());
        return streamed(body);
      },
    });
    const client = await connect(port);
    client.get(blobPath);
    body.push(Buffer.from('abc'));
    await client.until(({ text }) => text.endsWith('abc'));
    client.close();
    await waitFor(() => signal?.aborted === true && body.cancels > 0);
    const next = await connect(port);
    next.get(manifestPath);
    expect((await next.answer()).status).toBe(200);
    expect(logged.filter(({ level }) => level === 'error')).toEqual([]);
    expect(logged.map(({ fields }) => fields['end'])).toContain('client_gone');
  });

  it('RegistryServer cancels a body that comes after its client has gone', async () => {
    const body = new FakeBody({ sizeBytes: 1000 });
    const asked = Promise.withResolvers<PullRequest>();
    const gone = Promise.withResolvers<undefined>();
    const { port } = await start({
      blob: async (request) => {
        asked.resolve(request);
        request.signal.addEventListener('abort', () => gone.resolve(undefined));
        await gone.promise;
        return streamed(body);
      },
    });
    const client = await connect(port);
    client.get(blobPath);
    await asked.promise;
    client.close();
    await waitFor(() => body.cancels > 0);
    expect(body.pulls).toBe(0);
  });

  it('RegistryServer ends a relay that breaks with FIN, after what it has got', async () => {
    const body = new FakeBody({
      sizeBytes: 1000,
      steps: [Buffer.from('abc'), new SourceError('cut', 'no source is left')],
    });
    const { port } = await start({ blob: async () => streamed(body) });
    const client = await connect(port);
    client.get(blobPath);
    await client.untilEnded();
    expect([client.end, client.text.slice(-3)]).toEqual(['fin', 'abc']);
    await waitFor(() => logged.some(({ fields }) => fields['end'] === 'cut'));
  });

  it('RegistryServer ends a relay of wrong bytes with RST', async () => {
    const body = new FakeBody({
      sizeBytes: 1000,
      steps: [Buffer.from('abc'), new WrongBytesError('wrong')],
    });
    const { port } = await start({ blob: async () => streamed(body) });
    const client = await connect(port);
    client.get(blobPath);
    await client.untilEnded();
    expect(client.end).toBe('rst');
    await waitFor(() =>
      logged.some(({ level, fields }) => level === 'error' && fields['end'] === 'wrong_bytes'),
    );
  });

  it('RegistryServer ends the connection when a pull throws, and logs it', async () => {
    const { port } = await start({ manifest: () => Promise.reject(new TypeError('a bug')) });
    const client = await connect(port);
    client.get(manifestPath);
    await client.untilEnded();
    expect(client.text).toBe('');
    expect(logged.map(({ message }) => message)).toContain('request failed');
  });

  it('RegistryServer lets go of a client that takes nothing of a large manifest', async () => {
    const { port } = await start({
      clientStallMs: 100,
      maxStreams: 1,
      manifest: async () => whole(Buffer.alloc(64 * 1024 * 1024)),
    });
    const client = await connect(port);
    client.socket.pause();
    client.get(manifestPath);
    await waitFor(() => logged.some(({ fields }) => fields['end'] === 'client_stalled'));
    client.socket.resume();
    await client.until(({ socket }) => socket.destroyed);
    expect(client.received.length).toBeLessThan(64 * 1024 * 1024);
  });

  it('RegistryServer lets running answers end when it closes, and takes no new ones', async () => {
    const body = new FakeBody({ sizeBytes: 4 });
    const { port, server } = await start({ blob: async () => streamed(body) });
    const client = await connect(port);
    client.get(blobPath);
    body.push(Buffer.from('ab'));
    await client.until(({ text }) => text.endsWith('ab'));
    const closed = server.close({ signal: new AbortController().signal });
    await expect(RawClient.open(port)).rejects.toThrow('ECONNREFUSED');
    body.push(Buffer.from('cd'));
    body.end();
    expect((await client.answer()).body.toString()).toBe('abcd');
    await closed;
    await client.untilEnded();
  });

  it('RegistryServer waits for no connection that has had no request when it closes', async () => {
    const body = new FakeBody({ sizeBytes: 2 });
    const { port, server } = await start({ blob: async () => streamed(body) });
    const unused = await connect(port);
    const client = await connect(port);
    client.get(blobPath);
    body.push(Buffer.from('a'));
    await client.until(({ text }) => text.endsWith('a'));
    const closed = server.close({ signal: new AbortController().signal });
    await unused.untilEnded();
    body.push(Buffer.from('b'));
    body.end();
    expect((await client.answer()).body.toString()).toBe('ab');
    await closed;
  });

  it('RegistryServer cuts what still runs when its time to close is over', async () => {
    const body = new FakeBody({ sizeBytes: 4 });
    const { port, server } = await start({
      blob: async (request) => {
        request.signal.addEventListener('abort', () => body.cancel());
        return streamed(body);
      },
    });
    const client = await connect(port);
    client.get(blobPath);
    body.push(Buffer.from('ab'));
    await client.until(({ text }) => text.endsWith('ab'));
    const over = new AbortController();
    const closed = server.close({ signal: over.signal });
    over.abort();
    await closed;
    await client.until(({ socket }) => socket.destroyed);
  });

  it('RegistryServer says which address it cannot take', async () => {
    const { port } = await start();
    const second = await start();
    await expect(second.server.listen(`127.0.0.1:${port}`)).rejects.toThrow();
  });
});
