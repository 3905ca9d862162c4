import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { readProxies } from '../../../../src/registry/upstream/proxy.ts';
import { TokenServices } from '../../../../src/registry/upstream/token-service.ts';
import type { UpstreamClient } from '../../../../src/registry/upstream/upstream-client.ts';
import { createAuthority } from '../../../../src/rpc/certificates.ts';
import { ConnectProxy, type ProxyMode } from '../../../support/connect-proxy.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { issueServerCertificate } from '../../../support/server-certificate.ts';
import { waitFor } from '../../../support/wait.ts';
import { responseOf } from './fake-response.ts';
import {
  clientOf as newClient,
  closedAfterwards,
  endpointOf,
  request,
  serve,
  textOf,
} from './upstream-scene.ts';

expectNoLeaks();

let directory: string;
let tls: { readonly cert: string; readonly key: string };
let ca: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-proxy-'));
  const issued = await issueServerCertificate(await createAuthority());
  tls = issued;
  ca = join(directory, 'ca.pem');
  await writeFile(ca, issued.ca);
});

afterAll(() => rm(directory, { recursive: true }));

afterEach(() => {
  vi.unstubAllEnvs();
});

function clientOf(url: string, options: Parameters<typeof newClient>[1] = {}): UpstreamClient {
  return closedAfterwards(newClient(url, { ca, ...options }));
}

/** A proxy that every client of this test goes through. */
async function startProxy(mode: ProxyMode = 'pass'): Promise<ConnectProxy> {
  const proxy = closedAfterwards(await ConnectProxy.start());
  proxy.mode = mode;
  vi.stubEnv('HTTPS_PROXY', proxy.url);
  vi.stubEnv('HTTP_PROXY', proxy.url);
  return proxy;
}

// Nobody answers there, and nobody is asked for it but the proxy.
const far = 'https://registry.test';
const text = (part: string): string => expect.stringContaining(part) as string;

describe('UpstreamClient and proxies', () => {
  it('UpstreamClient goes through the proxy that the environment names, and trusts as before', async () => {
    const proxy = await startProxy();
    const secure = await serve((_, response) => response.end('secure'), tls);
    const headers = { authorization: 'Bearer secret' };
    expect(await textOf(await clientOf(secure.url).send(request({ headers })))).toBe('secure');
    expect(proxy.tunnels).toEqual([secure.host]);
    expect(proxy.seenText).not.toContain('secret');
    // Without its authority the tunnel leads nowhere.
    const stranger = closedAfterwards(newClient(secure.url));
    await expect(stranger.send(request())).rejects.toMatchObject({ kind: 'tls' });
  });

  it('UpstreamClient goes through a proxy to plain http too, and past it where NO_PROXY says', async () => {
    const proxy = await startProxy();
    const server = await serve((_, response) => response.end('plain'));
    expect(await textOf(await clientOf(server.url).send(request()))).toBe('plain');
    expect([proxy.forwarded.length, proxy.tunnels.length]).toEqual([1, 0]);
    vi.stubEnv('NO_PROXY', `other.test,127.0.0.1`);
    expect(await textOf(await clientOf(server.url).send(request()))).toBe('plain');
    expect([proxy.forwarded.length, proxy.tunnels.length]).toEqual([1, 0]);
  });

  it.each([500, 502, 503, 504])(
    'UpstreamClient takes %i of a proxy for a sign that the upstream is down',
    async (status) => {
      const proxy = await startProxy({ status });
      await expect(clientOf(far).send(request())).rejects.toMatchObject({
        kind: 'gateway',
        status,
        isOutageSign: true,
        origin: 'registry.test',
        message: `The proxy ${proxy.host} cannot reach registry.test (${status})`,
      });
      expect(proxy.tunnels).toEqual(['registry.test:443']);
    },
  );

  it.each([
    { status: 403, advice: 'NO_PROXY' },
    { status: 407, advice: 'http://user:password@' },
    { status: 404, advice: 'HTTPS_PROXY' },
    { status: 201, advice: 'HTTPS_PROXY' },
  ])('UpstreamClient says what to do when a proxy answers $status', async ({ status, advice }) => {
    const proxy = await startProxy({ status });
    const secure = await serve((_, response) => response.end(), tls);
    const failure = await clientOf(secure.url)
      .send(request())
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({ kind: 'bad_answer', status, isOutageSign: false });
    const { message } = failure as Error;
    for (const part of [proxy.host, secure.host, String(status), advice]) {
      expect(message).toContain(part);
    }
    expect(secure.connections).toBe(0);
  });

  it('UpstreamClient says the same when a proxy wants credentials for plain http', async () => {
    const proxy = await startProxy({ status: 407 });
    const client = clientOf('http://registry.test');
    const wanted = {
      kind: 'bad_answer',
      status: 407,
      message: text(`http://user:password@${proxy.host}`),
    };
    await expect(client.send(request())).rejects.toMatchObject(wanted);
    // The connection is of use again after it.
    proxy.mode = { status: 502 };
    const response = await client.send(request());
    expect([response.status, await textOf(response)]).toEqual([502, 'no']);
    await expect(client.look(new URL('http://auth.test/token'), { timeoutMs: 5000 })).resolves.toBe(
      502,
    );
    proxy.mode = { status: 407 };
    await expect(
      client.look(new URL('http://auth.test/token'), { timeoutMs: 5000 }),
    ).rejects.toMatchObject({ kind: 'bad_answer' });
  });

  it.each(['https://registry.test', 'http://registry.test'])(
    'UpstreamClient tells a dead proxy from what is behind it: %s',
    async (url) => {
      const proxy = await startProxy();
      const { host } = proxy;
      await proxy.close();
      await expect(clientOf(url).send(request())).rejects.toMatchObject({
        kind: 'proxy',
        isOutageSign: true,
        origin: 'registry.test',
        message: `The proxy ${host} on the way to registry.test refused the connection (ECONNREFUSED)`,
      });
    },
  );

  it('UpstreamClient tells a proxy that breaks off or is none', async () => {
    await startProxy('reset');
    await expect(clientOf(far).send(request())).rejects.toMatchObject({ kind: 'proxy' });
    const other = await serve(({ socket }) => void socket.end('SSH-2.0-x\r\n\r\n'));
    other.raw.on('connect', (_, socket) => socket.end('SSH-2.0-x\r\n\r\n'));
    vi.stubEnv('HTTPS_PROXY', other.url);
    await expect(clientOf(far).send(request())).rejects.toMatchObject({
      kind: 'bad_answer',
      message: text(`The proxy ${other.host} speaks no HTTP`),
    });
  });

  it('UpstreamClient gets through as soon as a proxy that was silent speaks', async () => {
    const proxy = await startProxy('silent');
    const secure = await serve((_, response) => response.end('secure'), tls);
    const client = clientOf(secure.url, { connectMs: 200, connections: 2 });
    const silence = { kind: 'timeout', isOutageSign: true };
    for (const fresh of [false, true]) {
      const early = client.send(request({ headersTimeoutMs: 50, fresh }));
      await expect(early).rejects.toMatchObject(silence);
      const late = client.send(request({ fresh }));
      await expect(late).rejects.toMatchObject({ ...silence, message: text(proxy.host) });
    }
    // Nothing waits for an answer any more.
    await waitFor(() => proxy.openConnections === 0);
    proxy.mode = 'pass';
    for (const fresh of [false, true]) {
      expect(await textOf(await client.send(request({ fresh })))).toBe('secure');
    }
  });

  it.each([
    { reply: 4, kind: 'gateway', isOutageSign: true },
    { reply: 5, kind: 'gateway', isOutageSign: true },
    {
      reply: 2,
      kind: 'bad_answer',
      isOutageSign: false,
      message: text('The SOCKS proxy of the environment does not lead to'),
    },
  ])('UpstreamClient takes the word $reply of a SOCKS proxy for $kind', async (expected) => {
    const { reply, ...failure } = expected;
    const open = new Set<Socket>();
    const server = createServer((socket) => {
      open.add(socket.on('error', () => socket.destroy()));
      socket.once('data', () => {
        socket.write(Buffer.from([5, 0]));
        socket.once('data', () => socket.write(Buffer.from([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    closedAfterwards({
      close: async () => {
        for (const socket of open) socket.destroy();
        server.close();
        await once(server, 'close');
      },
    });
    vi.stubEnv('HTTPS_PROXY', `socks5://127.0.0.1:${(server.address() as AddressInfo).port}`);
    await expect(clientOf(far).send(request())).rejects.toMatchObject(failure);
  });

  it('UpstreamClient calls cancelled what its own signal ended, and what it closed', async () => {
    const proxy = await startProxy('silent');
    const leaving = new AbortController();
    const client = clientOf(far);
    const failure = client.send(request({ signal: leaving.signal }));
    await waitFor(() => proxy.tunnels.length === 1);
    leaving.abort();
    await expect(failure).rejects.toMatchObject({ kind: 'cancelled' });
    const other = newClient(far);
    const closed = other.send(request());
    closed.catch(() => undefined);
    await waitFor(() => proxy.tunnels.length === 2);
    await other.close();
    await expect(closed).rejects.toMatchObject({ kind: 'cancelled' });
  });
});

describe('Endpoint and proxies', () => {
  it('Endpoint proves an outage by the word of a proxy, and its end', async () => {
    const proxy = await startProxy({ status: 502 });
    const secure = await serve((_, response) => response.end('[]'), tls);
    const endpoint = closedAfterwards(endpointOf(secure.url, { ca }));
    const ask = () =>
      endpoint.ask(
        { method: 'GET', path: '/v2/a/manifests/1', headers: {} },
        { signal: new AbortController().signal },
      );
    await expect(ask()).rejects.toMatchObject({ kind: 'gateway', isProven: true });
    expect(proxy.tunnels.length).toBe(2);
    expect(endpoint.outage?.cause).toMatchObject({ kind: 'gateway', status: 502 });
    proxy.mode = 'pass';
    const response = await ask();
    expect([response.status, await textOf(response)]).toEqual([200, '[]']);
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint proves no outage by a proxy that refuses', async () => {
    const proxy = await startProxy({ status: 403 });
    const endpoint = closedAfterwards(endpointOf(far));
    for (let round = 0; round < 3; round += 1) {
      await expect(
        endpoint.ask(
          { method: 'GET', path: '/v2/a/manifests/1', headers: {} },
          { signal: new AbortController().signal },
        ),
      ).rejects.toMatchObject({ kind: 'bad_answer', isProven: false });
    }
    expect(endpoint.outage).toBeUndefined();
    expect(proxy.tunnels.length).toBe(3);
  });
});

describe('TokenServices and proxies', () => {
  const challenge = responseOf({
    status: 401,
    headers: { 'www-authenticate': 'Bearer realm="https://auth.test/token"' },
  });

  it.each([
    { status: 502, found: { kind: 'token_service', isProven: true, origin: 'auth.test' } },
    // The client may have a way of its own.
    { status: 403, found: undefined },
  ])('TokenServices takes $status of a proxy for what it is', async ({ status, found }) => {
    await startProxy({ status });
    const services = new TokenServices(
      { probeTimeoutMs: 5000, proofGapMs: 20, aliveMs: 1000, downMs: 1000 },
      { client: clientOf(far) },
    );
    const failure = await services.check(challenge);
    if (found === undefined) expect(failure).toBeUndefined();
    else expect(failure).toMatchObject(found);
  });
});

describe('readProxies', () => {
  it('readProxies reads what others read in the same variables', () => {
    const read = (env: NodeJS.ProcessEnv) => {
      const { http, https } = readProxies(env);
      return [http?.href, https?.href];
    };
    expect(read({})).toEqual([undefined, undefined]);
    expect(read({ HTTP_PROXY: 'http://a.test:1' })).toEqual([
      'http://a.test:1/',
      'http://a.test:1/',
    ]);
    expect(read({ HTTPS_PROXY: 'b.test:3128' })).toEqual([undefined, 'http://b.test:3128/']);
    expect(read({ http_proxy: 'https://a.test', HTTP_PROXY: 'http://c.test' })[0]).toBe(
      'https://a.test/',
    );
    expect(read({ https_proxy: '', HTTPS_PROXY: 'http://c.test' })).toEqual([undefined, undefined]);
  });

  it.each(['http://', 'ftp://proxy.test', 'http://user:secret@[', 'a b'])(
    'readProxies names the variable and not the value of %s',
    (value) => {
      const read = () => readProxies({ HTTPS_PROXY: value });
      expect(read).toThrow('HTTPS_PROXY of the environment is no URL of a proxy');
      expect(read).not.toThrow('secret');
    },
  );
});
