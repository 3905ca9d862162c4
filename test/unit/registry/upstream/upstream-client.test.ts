import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import { UpstreamClient } from '../../../../src/registry/upstream/upstream-client.ts';
import { createAuthority } from '../../../../src/rpc/certificates.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { freePort } from '../../../support/ports.ts';
import { issueServerCertificate } from '../../../support/server-certificate.ts';
import { waitFor } from '../../../support/wait.ts';
import {
  clientOf as newClient,
  closedAfterwards,
  request,
  serve,
  textOf,
} from './upstream-scene.ts';
import { WebServer, type Handler } from './web-server.ts';

expectNoLeaks();

afterEach(() => {
  vi.useRealTimers();
});

function clientOf(url: string, options: Parameters<typeof newClient>[1] = {}): UpstreamClient {
  return closedAfterwards(newClient(url, options));
}

const redirectTo =
  (location: () => string, status = 307): Handler =>
  (_, response) =>
    response.writeHead(status, { location: location() }).end('moved');

const secrets = { authorization: 'Bearer secret', Cookie: 'a=secret', accept: 'a/b' };

describe('UpstreamClient', () => {
  it('UpstreamClient asks its upstream and gives the answer, unread', async () => {
    const server = await serve((_, response) => {
      response.writeHead(200, { 'x-a': 'b' }).end('hello');
    });
    const client = clientOf(server.url);
    const response = await client.send(request({ headers: secrets }));
    expect(response).toMatchObject({ status: 200, host: server.host });
    expect(response.headers['x-a']).toBe('b');
    expect(await textOf(response)).toBe('hello');
    expect(server.requests).toMatchObject([
      {
        method: 'GET',
        url: '/v2/a/manifests/1',
        headers: { authorization: 'Bearer secret', 'accept-encoding': 'identity', accept: 'a/b' },
      },
    ]);
  });

  it('UpstreamClient uses a connection again, after GET and after HEAD', async () => {
    const server = await serve((_, response) => {
      response.writeHead(200, { 'content-length': 5 }).end('hello');
    });
    const client = clientOf(server.url);
    for (let round = 0; round < 20; round += 1) {
      await textOf(await client.send(request()));
      const head = await client.send(request({ method: 'HEAD' }));
      await head.body.dump();
    }
    // A request that follows at once may still find the first one taken.
    expect(server.connections).toBeLessThanOrEqual(2);
  });

  it('UpstreamClient opens a connection for a fresh request and closes it', async () => {
    const server = await serve((_, response) => response.end('hello'));
    const client = clientOf(server.url);
    await textOf(await client.send(request()));
    for (let round = 1; round <= 3; round += 1) {
      await textOf(await client.send(request({ fresh: true })));
      expect(server.connections).toBe(1 + round);
    }
    await waitFor(() => server.openConnections === 1);
  });

  it('UpstreamClient gives up on silence after the time of the request', async () => {
    const server = await serve(() => undefined);
    const failure = clientOf(server.url).send(request({ headersTimeoutMs: 50 }));
    await expect(failure).rejects.toMatchObject({ kind: 'timeout', origin: server.host });
    await waitFor(() => server.openConnections === 0);
  });

  it('UpstreamClient ends request and body when the signal aborts', async () => {
    const server = await serve((message, response) => {
      if (message.url === '/body') response.writeHead(200).write('a');
    });
    const client = clientOf(server.url);
    const early = new AbortController();
    const failure = client.send(request({ signal: early.signal }));
    await waitFor(() => server.requests.length === 1);
    early.abort();
    await expect(failure).rejects.toMatchObject({ kind: 'cancelled' });

    const late = new AbortController();
    const response = await client.send(request({ path: '/body', signal: late.signal }));
    const reading = textOf(response);
    late.abort();
    await expect(reading).rejects.toThrow();
    await waitFor(() => server.openConnections === 0);
  });

  it('UpstreamClient lets a body take longer than its headers may', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const end = Promise.withResolvers<undefined>();
    const server = await serve((_, response) => {
      response.writeHead(200).write('a');
      void end.promise.then(() => response.end('b'));
    });
    const response = await clientOf(server.url).send(request({ headersTimeoutMs: 60 }));
    const reading = textOf(response);
    await vi.advanceTimersByTimeAsync(120);
    end.resolve(undefined);
    expect(await reading).toBe('ab');
  });

  it('UpstreamClient names each way in which a connection fails', async () => {
    const refused = `http://127.0.0.1:${await freePort()}`;
    await expect(clientOf(refused).send(request())).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('refused the connection (ECONNREFUSED)') as string,
    });
    const resetting = await serve(({ socket }) => socket.resetAndDestroy());
    await expect(clientOf(resetting.url).send(request())).rejects.toMatchObject({ kind: 'reset' });
    await expect(clientOf('http://no-such-host.invalid').send(request())).rejects.toMatchObject({
      kind: 'dns',
    });
    const nonsense = await serve(({ socket }) => void socket.end('SSH-2.0-x\r\n\r\n'));
    await expect(clientOf(nonsense.url).send(request())).rejects.toMatchObject({
      kind: 'bad_answer',
    });
  });
});

describe('UpstreamClient and answers that are none', () => {
  it.each([
    { what: 'headers without end', head: `X-A: ${'a'.repeat(40_000)}\r\nContent-Length: 2` },
    { what: 'two lengths', head: 'Content-Length: 2\r\nContent-Length: 5' },
    { what: 'a length beside chunks', head: 'Content-Length: 2\r\nTransfer-Encoding: chunked' },
  ])('UpstreamClient takes $what for nonsense, and for no sign of an outage', async ({ head }) => {
    const server = await serve(({ socket }) => {
      socket.end(`HTTP/1.1 200 OK\r\n${head}\r\n\r\nok`);
    });
    await expect(clientOf(server.url).send(request())).rejects.toMatchObject({
      kind: 'bad_answer',
      isOutageSign: false,
      message: expect.not.stringContaining('reset') as string,
    });
  });
});

describe('UpstreamClient and redirects', () => {
  it('UpstreamClient never takes credentials to another host or port', async () => {
    const elsewhere = await serve((_, response) => response.end('bytes'));
    const server = await serve(redirectTo(() => `${elsewhere.url}/blob?sig=1`));
    const client = clientOf(server.url);
    const response = await client.send(request({ headers: { ...secrets, range: 'bytes=1-' } }));
    expect(await textOf(response)).toBe('bytes');
    expect(response.host).toBe(elsewhere.host);
    const [seen] = elsewhere.requests;
    expect(seen?.url).toBe('/blob?sig=1');
    expect(seen?.headers).not.toHaveProperty('authorization');
    expect(seen?.headers).not.toHaveProperty('cookie');
    expect(JSON.stringify(seen)).not.toContain('secret');
    expect(seen?.headers).toMatchObject({ range: 'bytes=1-', accept: 'a/b' });
  });

  it('UpstreamClient does not take them up again on the way back', async () => {
    const places: WebServer[] = [];
    const away = await serve(redirectTo(() => `${places[0]!.url}/back`));
    const home = await serve((message, response) => {
      if (message.url === '/back') response.end('home');
      else response.writeHead(302, { location: away.url }).end();
    });
    places.push(home);
    await textOf(await clientOf(home.url).send(request({ headers: secrets })));
    expect(home.requests.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer secret',
      undefined,
    ]);
  });

  it('UpstreamClient keeps credentials where the redirect stays at home', async () => {
    const server = await serve((message, response) => {
      if (message.url === '/here') response.end('here');
      else response.writeHead(301, { location: '/here' }).end();
    });
    await textOf(await clientOf(server.url).send(request({ headers: secrets })));
    expect(server.requests.map(({ headers }) => headers.authorization)).toEqual([
      'Bearer secret',
      'Bearer secret',
    ]);
  });

  it('UpstreamClient keeps the method, also for 303', async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      const server = await serve((message, response) => {
        if (message.url === '/here') response.end();
        else response.writeHead(status, { location: '/here' }).end();
      });
      await (await clientOf(server.url).send(request({ method: 'HEAD' }))).body.dump();
      expect(server.requests.map(({ method }) => method)).toEqual(['HEAD', 'HEAD']);
    }
  });

  it('UpstreamClient leaves a loop after a few rounds', async () => {
    const server = await serve(redirectTo(() => '/again'));
    await expect(clientOf(server.url).send(request())).rejects.toMatchObject({ kind: 'redirect' });
    expect(server.requests.length).toBeLessThanOrEqual(6);
  });

  it.each(['ftp://127.0.0.1/', 'file:///etc/passwd', 'http://[', 'javascript:1', 'http://'])(
    'UpstreamClient does not follow a redirect to %s',
    async (location) => {
      const server = await serve(redirectTo(() => location));
      await expect(clientOf(server.url).send(request())).rejects.toMatchObject({
        kind: 'redirect',
      });
    },
  );

  it('UpstreamClient hands on a 300, a 304 and a redirect to nowhere as they are', async () => {
    for (const status of [300, 304, 307]) {
      const server = await serve((_, response) => response.writeHead(status).end());
      const response = await clientOf(server.url).send(request());
      await response.body.dump();
      expect(response.status).toBe(status);
    }
  });

  it('UpstreamClient does not wait for the end of a redirect that talks for ever', async () => {
    const server = await serve((_, response) => {
      response.writeHead(307, { location: '/here' });
      response.write('never ending');
    });
    await expect(
      clientOf(server.url).send(request({ headersTimeoutMs: 100 })),
    ).rejects.toMatchObject({ kind: 'timeout' });
    await waitFor(() => server.openConnections === 0);
  });

  it('UpstreamClient blames the place that was redirected to, and leaves it alone for a while', async () => {
    const silent = await serve(() => undefined);
    const server = await serve(redirectTo(() => silent.url));
    const client = clientOf(server.url, { redirectRetryMs: 60_000 });
    const ask = () => client.send(request({ headersTimeoutMs: 40 }));
    const timeout = { kind: 'timeout', origin: silent.host };
    await expect(ask()).rejects.toMatchObject(timeout);
    expect(client.isRedirectTargetDown).toBe(false);
    await expect(ask()).rejects.toMatchObject(timeout);
    expect(client.isRedirectTargetDown).toBe(true);
    await expect(ask()).rejects.toMatchObject({ kind: 'circuit_open', origin: silent.host });
    expect(silent.requests.length).toBe(2);
  });

  it('UpstreamClient does not blame that place when its own client leaves', async () => {
    const silent = await serve(() => undefined);
    const server = await serve(redirectTo(() => silent.url));
    const client = clientOf(server.url, { redirectRetryMs: 60_000 });
    for (let round = 0; round < 3; round += 1) {
      const leaving = new AbortController();
      const failure = client.send(request({ signal: leaving.signal }));
      await waitFor(() => silent.requests.length === round + 1);
      leaving.abort();
      await expect(failure).rejects.toMatchObject({ kind: 'cancelled' });
    }
    expect(client.isRedirectTargetDown).toBe(false);
  });

  it('UpstreamClient counts failures of its own paths for itself alone', async () => {
    const server = await serve((message, response) => {
      if (message.url === '/broken') response.writeHead(500).end();
      else response.writeHead(307, { location: '/broken' }).end();
    });
    const client = clientOf(server.url, { redirectRetryMs: 60_000 });
    for (let round = 0; round < 4; round += 1) {
      const response = await client.send(request());
      await response.body.dump();
      expect(response.status).toBe(500);
    }
    expect(client.isRedirectTargetDown).toBe(false);
  });
});

describe('UpstreamClient and guarded addresses', () => {
  const strict = new AddressGuard([]);

  it('UpstreamClient dials no guarded address, written out or behind a name', async () => {
    const server = await serve((_, response) => response.end());
    for (const url of [
      server.url,
      `http://localhost:${server.port}`,
      `http://[::ffff:127.0.0.1]:${server.port}`,
      `http://0x7f000001:${server.port}`,
    ]) {
      const failure = clientOf(url, { guard: strict }).send(request());
      await expect(failure).rejects.toMatchObject({ kind: 'forbidden_address' });
    }
    expect(server.connections).toBe(0);
  });

  it('UpstreamClient follows no redirect to a guarded address or name', async () => {
    const victim = await serve((_, response) => response.end('secret'));
    const onlyHome = new AddressGuard(['127.0.0.1/32']);
    for (const location of [
      `http://127.0.0.2:${victim.port}/`,
      `http://127.2:${victim.port}/`,
      `http://[::1]:${victim.port}/`,
      'http://169.254.169.254/latest/meta-data/',
    ]) {
      const server = await serve(redirectTo(() => location));
      const failure = clientOf(server.url, { guard: onlyHome }).send(request());
      await expect(failure).rejects.toMatchObject({ kind: 'forbidden_address' });
    }
    // The name of this machine leads to loopback only by the lookup.
    const six = new AddressGuard(['::1/128']);
    await expect(
      clientOf(`http://localhost:${victim.port}`, { guard: six }).send(request()),
    ).rejects.toMatchObject({ kind: expect.stringMatching(/forbidden_address|refused/) as string });
    expect(victim.connections).toBe(0);
  });

  it('UpstreamClient looks at no token service behind a guarded address', async () => {
    const server = await serve((_, response) => response.end());
    const client = clientOf(server.url, { guard: strict });
    const look = client.look(new URL(`http://localhost:${server.port}/token`), { timeoutMs: 500 });
    await expect(look).rejects.toMatchObject({ kind: 'forbidden_address' });
    expect(server.connections).toBe(0);
  });
});

describe('UpstreamClient over TLS', () => {
  let directory: string;
  let tls: { readonly cert: string; readonly key: string };
  let ca: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'salvor-tls-'));
    const issued = await issueServerCertificate(await createAuthority());
    tls = issued;
    ca = join(directory, 'ca.pem');
    await writeFile(ca, issued.ca);
  });

  afterAll(() => rm(directory, { recursive: true }));

  it('UpstreamClient trusts the authority that it is given, and not without', async () => {
    const server = await serve((_, response) => response.end('private'), tls);
    expect(await textOf(await clientOf(server.url, { ca }).send(request()))).toBe('private');
    await expect(clientOf(server.url).send(request())).rejects.toMatchObject({ kind: 'tls' });
  });

  it('UpstreamClient speaks HTTP/1.1 alone, so that a fresh connection is one', async () => {
    const versions: string[] = [];
    const server = createSecureServer({ ...tls, allowHTTP1: true }, (message, response) => {
      versions.push(message.httpVersion);
      response.end('ok');
    });
    let connections = 0;
    server.on('secureConnection', () => (connections += 1));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    closedAfterwards({ close: async () => void server.close() });
    const { port } = server.address() as AddressInfo;
    const client = clientOf(`https://127.0.0.1:${port}`, { ca });
    expect(await textOf(await client.send(request()))).toBe('ok');
    for (let round = 1; round <= 3; round += 1) {
      expect(await textOf(await client.send(request({ fresh: true })))).toBe('ok');
      expect(connections).toBe(1 + round);
    }
    expect(versions).toEqual(['1.1', '1.1', '1.1', '1.1']);
  });

  it('UpstreamClient refuses to go from https to http', async () => {
    const plain = await serve((_, response) => response.end());
    const server = await serve(
      redirectTo(() => plain.url),
      tls,
    );
    await expect(clientOf(server.url, { ca }).send(request())).rejects.toMatchObject({
      kind: 'redirect',
    });
    expect(plain.requests).toEqual([]);
  });

  it('UpstreamClient takes no credentials from http to https on another port', async () => {
    const secure = await serve((_, response) => response.end('ok'), tls);
    const server = await serve(redirectTo(() => secure.url));
    await textOf(await clientOf(server.url, { ca }).send(request({ headers: secrets })));
    expect(secure.requests[0]?.headers).not.toHaveProperty('authorization');
  });

  it('UpstreamClient says which file cannot be read', () => {
    const missing = join(directory, 'missing.pem');
    expect(() => clientOf('https://a.test', { ca: missing })).toThrow('missing.pem');
  });
});
