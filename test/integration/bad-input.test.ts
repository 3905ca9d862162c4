import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Server } from 'node:net';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { expectOciError } from '../support/expect-oci-error.ts';
import { buildImage, type Image } from '../support/image.ts';
import { openFileDescriptors } from '../support/leaks.ts';
import { sha256 } from '../support/layer.ts';
import { get, head, sendRaw } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('bad-input');
const registryName = 'registry.test';
const redirectingName = 'redirecting.test';
const repository = 'team/app';

let upstream: DockerRegistry;
let redirecting: Redirecting;
let trap: Trap;
let node: ClusterNode;
let strict: ClusterNode;
let image: Image;

/** A listener on every address of this machine, which nobody may ever connect to. */
interface Trap {
  readonly port: number;
  /** Connections that were made to it. */
  connections: number;
}

async function startTrap(): Promise<Trap> {
  const state = { port: 0, connections: 0 };
  const server = createTcpServer((socket) => {
    state.connections += 1;
    socket.destroy();
  });
  // Of both families, so that no way of writing loopback gets around it.
  server.listen({ host: '::', port: 0 });
  await once(server, 'listening');
  state.port = (server.address() as AddressInfo).port;
  scope().defer(() => close(server));
  return state;
}

/** A registry that sends every blob elsewhere. */
interface Redirecting {
  readonly url: string;
  location: string;
  requests: number;
}

async function startRedirecting(): Promise<Redirecting> {
  const state = { url: '', location: '', requests: 0 };
  const server = createServer((request, response) => {
    state.requests += 1;
    request.resume();
    response.writeHead(307, { location: state.location, 'content-length': 0 }).end();
  });
  server.listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  scope().defer(async () => {
    server.closeAllConnections();
    await close(server);
  });
  return state;
}

async function close(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  await closed;
}

/** An answer as it came over the wire. */
interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Sends bytes and reads one answer to the end of the connection. */
async function ask(bytes: string | Buffer): Promise<RawAnswer> {
  const text = await sendRaw(node.registryPort, bytes);
  const end = text.indexOf('\r\n\r\n');
  const [statusLine = '', ...lines] = text.slice(0, end).split('\r\n');
  const status = /^HTTP\/1\.1 (\d{3})/.exec(statusLine)?.[1];
  expect(status, `not an answer: ${JSON.stringify(text.slice(0, 200))}`).toBeDefined();
  const headers = lines.map((line) => /^([^:]+): ?(.*)$/.exec(line)!);
  return {
    status: Number(status),
    headers: Object.fromEntries(headers.map((match) => [match[1]!.toLowerCase(), match[2]!])),
    body: Buffer.from(text.slice(end + 4), 'latin1'),
  };
}

function request(target: string, options: { method?: string; headers?: string } = {}): string {
  const { method = 'GET', headers = '' } = options;
  return `${method} ${target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n${headers}\r\n`;
}

async function expectStillServing(): Promise<void> {
  expect(node.registry.hasExited).toBe(false);
  expect(await get(`${node.url}/v2/`)).toMatchObject({ status: 200 });
  const answer = await get(`${node.url}/v2/${repository}/manifests/v1?ns=${registryName}`);
  expect(answer.body.equals(image.manifest)).toBe(true);
}

async function startNode(name: string, registry: object): Promise<ClusterNode> {
  const cluster = await startCluster(scope(), {
    nodes: [name],
    upstreams: {
      [registryName]: { url: upstream.url },
      [redirectingName]: { url: redirecting.url },
    },
    registry,
  });
  return cluster.node(name);
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  redirecting = await startRedirecting();
  trap = await startTrap();
  image = await buildImage({ directory: scope().directory, layers: [{ randomBytes: 10_000 }] });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  node = await startNode('open', {});
  strict = await startNode('strict', {
    allow: [registryName, '*.allowed.test'],
    deny: ['no.allowed.test'],
  });
  await expectStillServing();
});

describe('an upstream that policy does not allow', () => {
  test.each([
    'elsewhere.test',
    'no.allowed.test',
    'registry.test.evil.test',
    `${registryName}:5000`,
    '10.0.0.1:5000',
    'metadata.google.internal',
  ])('is answered 404, so that the client asks it itself: %s', async (name) => {
    const paths = [
      `/v2/${repository}/manifests/v1?ns=${name}`,
      `/v2/${name}/${repository}/blobs/${image.digest}`,
    ];
    for (const path of paths) {
      expectOciError(await get(`${strict.url}${path}`), { status: 404, code: 'NAME_UNKNOWN' });
      expect(await head(`${strict.url}${path}`)).toMatchObject({ status: 404 });
    }
  });

  test('is answered 404 where the request names none', async () => {
    const answer = await get(`${node.url}/v2/${repository}/manifests/v1`);
    expectOciError(answer, { status: 404, code: 'NAME_UNKNOWN' });
  });
});

describe('an address of this machine or its links', () => {
  const hosts = ['127.0.0.1', '127.0.0.2', 'localhost', '0.0.0.0', '[::1]', '[::ffff:127.0.0.1]'];

  test.each(hosts)('is never dialled because an image names it: %s', async (host) => {
    const before = trap.connections;
    const layer = image.blobs[0]!.digest;
    // What this node has is not given to those who name such a registry either.
    for (const path of ['manifests/v1', `manifests/${image.digest}`, `blobs/${layer}`]) {
      const name = encodeURIComponent(`${host}:${trap.port}`);
      const answer = await get(`${node.url}/v2/${repository}/${path}?ns=${name}`);
      expectOciError(answer, { status: 404, code: 'NAME_UNKNOWN' });
    }
    expect(trap.connections).toBe(before);
  });

  test('is never dialled: the metadata service of clouds', async () => {
    const answer = await get(`${node.url}/v2/latest/meta-data/manifests/v1?ns=169.254.169.254:80`);
    // What was dialled in vain would end otherwise.
    expectOciError(answer, { status: 404, code: 'NAME_UNKNOWN' });
  });

  test.each([
    { ns: '127.1', why: 'an address in disguise' },
    { ns: '0x7f.0.0.1', why: 'an address in disguise' },
    { ns: '2130706433', why: 'an address in disguise' },
    { ns: '0177.0.0.1', why: 'an address in disguise' },
    { ns: '127.0.0.1%00.registry.test', why: 'NUL' },
    { ns: 'registry.test@127.0.0.1', why: 'a user' },
    { ns: 'registry.test%2f..%2f127.0.0.1', why: 'a path' },
    { ns: 'http://127.0.0.1', why: 'a scheme' },
    { ns: '', why: 'empty' },
    { ns: `registry.test&ns=127.0.0.1`, why: 'twice' },
    { ns: 'a'.repeat(10_000), why: '10 kB' },
  ])('cannot be smuggled into ns: $why $ns', async ({ ns }) => {
    const answer = await ask(request(`/v2/${repository}/manifests/v1?ns=${ns}`));
    expectOciError(answer, { status: 400, code: 'NAME_INVALID' });
  });

  // 127.0.0.1 itself is where this registry is configured to be.
  test.each([
    '127.0.0.2',
    '0.0.0.0',
    '[::1]',
    '[::]',
    '2130706434',
    '0x7f.0.0.2',
    '[::ffff:7f00:2]',
  ])('is not followed to from a registry: %s', async (host) => {
    const before = trap.connections;
    const asked = redirecting.requests;
    redirecting.location = `http://${host}:${trap.port}/blob`;

    const answer = await get(
      `${node.url}/v2/${repository}/blobs/${sha256(host)}?ns=${redirectingName}`,
    );

    expectOciError(answer, { status: 404, code: 'BLOB_UNKNOWN' });
    expect(redirecting.requests).toBeGreaterThan(asked);
    expect(trap.connections).toBe(before);
  });

  test.each(['http://169.254.169.254/latest/meta-data/', 'http://[fe80::1]/'])(
    'is not followed to from a registry: %s',
    async (location) => {
      redirecting.location = location;
      for (const path of [`blobs/${sha256(location)}`, 'manifests/v1']) {
        const answer = await get(`${node.url}/v2/${repository}/${path}?ns=${redirectingName}`);
        // What was dialled in vain would be 503.
        expect(answer.status).toBe(404);
      }
    },
  );

  test.each(['file:///etc/passwd', 'ftp://registry.test/', '//', 'http://'])(
    'nor is what is no web address: %s',
    async (location) => {
      redirecting.location = location;
      const url = `${node.url}/v2/${repository}/blobs/${sha256(location)}?ns=${redirectingName}`;
      expectOciError(await get(url), { status: 503, code: 'UNAVAILABLE' });
    },
  );

  test('a registry that redirects to itself for ever is given up', async () => {
    redirecting.location = `${redirecting.url}/again`;
    const asked = redirecting.requests;
    const url = `${node.url}/v2/${repository}/blobs/${sha256('loop')}?ns=${redirectingName}`;
    expectOciError(await get(url), { status: 503, code: 'UNAVAILABLE' });
    expect(redirecting.requests - asked).toBeLessThan(20);
  });
});

describe('a path that means nothing', () => {
  const target = (name: string): string => `/v2/${name}/manifests/v1`;

  test.each([
    { what: 'traversal', target: target('../../etc/passwd') },
    { what: 'traversal in the middle', target: target('team/../app') },
    { what: 'encoded traversal', target: target('team/%2e%2e/app') },
    { what: 'twice encoded traversal', target: target('team/%252e%252e/app') },
    { what: 'an encoded slash', target: target('team%2Fapp') },
    { what: 'an encoded backslash', target: target('team%5capp') },
    { what: 'NUL', target: target('team/app%00') },
    { what: 'a line break', target: target('team/app%0d%0aX-Injected:%20yes') },
    { what: 'a broken escape', target: target('team/%zz') },
    { what: 'half an escape', target: '/v2/team/app/manifests/v1%' },
    { what: 'no UTF-8', target: target('team/%ff%fe') },
    { what: 'an empty segment', target: target('team//app') },
    { what: 'capitals', target: target('Team/App') },
    { what: 'a name of 10 kB', target: target(`${'a'.repeat(99)}/`.repeat(100) + 'b') },
    { what: 'a segment of 10 kB', target: target('a'.repeat(10_000)) },
    { what: 'a tag of 10 kB', target: `/v2/team/app/manifests/${'a'.repeat(10_000)}` },
    { what: 'a digest of 10 kB', target: `/v2/team/app/blobs/sha256:${'a'.repeat(10_000)}` },
    { what: 'a digest in a path of its own', target: `/v2/team/app/blobs/sha256:../../etc` },
  ])('is refused: $what', async ({ target: wanted }) => {
    const mark = wanted.includes('?') ? '&' : '?';
    const answer = await ask(request(`${wanted}${mark}ns=${registryName}`));
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThanOrEqual(404);
    const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string }[] };
    expectOciError(answer, { status: answer.status, code: errors[0]!.code });
    expect(['NAME_INVALID', 'DIGEST_INVALID', 'UNSUPPORTED']).toContain(errors[0]!.code);
    expect(answer.headers).not.toHaveProperty('x-injected');
  });

  test.each(['/', '/v1/', '/v2x', '/v2/team', '/metrics', '/../v2/', '//v2/', '*'])(
    'is not found: %s',
    async (wanted) => {
      expectOciError(await ask(request(wanted)), { status: 404, code: 'UNSUPPORTED' });
    },
  );

  test('does not make it a proxy for others', async () => {
    const before = trap.connections;
    for (const host of [`127.0.0.1:${trap.port}`, `localhost:${trap.port}`]) {
      const answer = await ask(request(`http://${host}/v2/${repository}/manifests/v1`));
      expectOciError(answer, { status: 404, code: 'UNSUPPORTED' });
      const tunnel = await ask(request(host, { method: 'CONNECT' }));
      expectOciError(tunnel, { status: 405, code: 'UNSUPPORTED' });
    }
    expect(trap.connections).toBe(before);
  });
});

describe('a method that would write', () => {
  const methods = ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY'];

  test.each(methods)('is refused, with and without a body: %s', async (method) => {
    for (const size of [0, 100_000]) {
      const target = `/v2/${repository}/blobs/uploads/?ns=${registryName}`;
      const headers = `Content-Length: ${size}\r\n`;
      const answer = await ask(request(target, { method, headers }) + 'x'.repeat(size));
      expectOciError(answer, { status: 405, code: 'UNSUPPORTED' });
      expect(answer.headers['allow']).toBe('GET, HEAD');
    }
  });

  test('reaches no registry', () => {
    const methods = new Set(upstream.accesses().map(({ method }) => method));
    upstream.clearAccesses();
    expect(
      [...methods].filter((method) => ['DELETE', 'OPTIONS', 'TRACE'].includes(method)),
    ).toEqual([]);
  });
});

describe('bytes that are no request', () => {
  const hello = Buffer.from('16030100640100006003030000000000', 'hex');

  test.each([
    { what: 'no HTTP', bytes: 'GARBAGE\r\n\r\n' },
    { what: 'an unknown method', bytes: 'FETCH /v2/ HTTP/1.1\r\nHost: a\r\n\r\n' },
    { what: 'an unknown version', bytes: 'GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n' },
    { what: 'HTTP/2', bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' },
    { what: 'TLS', bytes: Buffer.concat([hello, Buffer.alloc(100)]) },
    { what: 'NUL in the path', bytes: request('/v2/team\0/manifests/v1') },
    { what: 'a space in the path', bytes: request('/v2/team app/manifests/v1') },
    { what: 'NUL in a header', bytes: request('/v2/', { headers: 'X: a\0b\r\n' }) },
    { what: 'a header without a name', bytes: request('/v2/', { headers: ': a\r\n' }) },
    {
      what: 'two lengths',
      bytes: request('/v2/', { headers: 'Content-Length: 5\r\nContent-Length: 6\r\n' }),
    },
    {
      what: 'a length and chunks',
      bytes: request('/v2/', { headers: 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n' }),
    },
    { what: 'a length below zero', bytes: request('/v2/', { headers: 'Content-Length: -5\r\n' }) },
  ])('are refused: $what', async ({ bytes }) => {
    const answer = await ask(bytes);
    expectOciError(answer, { status: 400, code: 'UNSUPPORTED' });
    expect(answer.headers['connection']).toBe('close');
  });

  test('of headers beyond all measure are refused', async () => {
    for (const count of [1, 1000]) {
      const size = 64 * 1024;
      const headers = `X-Filler: ${'a'.repeat(size / count)}\r\n`.repeat(count);
      const answer = await ask(request('/v2/', { headers }));
      expectOciError(answer, { status: 431, code: 'UNSUPPORTED' });
    }
  });

  test('do not follow a body that nobody wanted', async () => {
    const inner = request(`/v2/${repository}/manifests/v1?ns=${registryName}`);
    const headers = `Content-Length: ${inner.length}\r\n`;
    const outer = request('/v2/', { headers }).replace('Connection: close\r\n', '');

    const text = await sendRaw(node.registryPort, outer + inner);

    expect(text.match(/HTTP\/1\.1 \d{3}/g)).toEqual(['HTTP/1.1 200']);
  });

  test('that end in the middle are let go', async () => {
    const before = await openFileDescriptors(node.registry.pid);
    for (let count = 0; count < 50; count += 1) {
      const socket = connect({ host: '127.0.0.1', port: node.registryPort });
      await once(socket, 'connect');
      socket.write(request(`/v2/${repository}/manifests/v1`).slice(0, count));
      if (count % 2 === 0) socket.resetAndDestroy();
      else socket.destroy();
    }
    await waitFor(async () => (await openFileDescriptors(node.registry.pid)) <= before, {
      what: 'the descriptors of before',
    });
  });
});

test('after all of it everything is served as before', async () => {
  await expectStillServing();
  const errors = node.registry.lines().filter(({ text }) => /"level":"(error|fatal)"/.test(text));
  expect(errors.map(({ text }) => text)).toEqual([]);
  expect(node.registry.lines().filter(({ stream }) => stream === 'stderr')).toEqual([]);
});
