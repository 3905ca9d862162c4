import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { askRegistryLog, isRegistryThere } from '../../../../src/agent/pulls/registry-log.ts';
import { VERSION_HEADER } from '../../../../src/oci/version-header.ts';

const digest = `sha256:${'a'.repeat(64)}`;
let server: Server | undefined;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A registry's admin port that answers everything in this way. */
async function admin(answer: (url: string) => object): Promise<string> {
  server = createServer((request, response) => {
    response.end(JSON.stringify(answer(request.url ?? '')));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function ask(address: string, signal = new AbortController().signal): Promise<object> {
  return askRegistryLog(address, digest, { signal });
}

test('askRegistryLog tells whether the registry was asked, and since when it knows', async () => {
  const since = '2026-11-24T10:00:00.000Z';
  const known = encodeURIComponent(digest);
  const address = await admin((url) => ({
    decisions: url === `/decisions?about=${known}` ? [{}] : [],
    since,
  }));
  expect(await ask(address)).toEqual({ isKnown: true, sinceMs: Date.parse(since) });
});

test('askRegistryLog says no where nothing was asked', async () => {
  const address = await admin(() => ({ decisions: [], since: '2026-11-24T10:00:00.000Z' }));
  expect(await ask(address)).toMatchObject({ isKnown: false });
});

test('askRegistryLog fails with a registry that is too old to say', async () => {
  const address = await admin(() => ({}));
  await expect(ask(address)).rejects.toThrow(`Cannot learn from ${address}`);
});

test('askRegistryLog fails where nobody listens', async () => {
  const address = await admin(() => ({}));
  server?.close();
  await once(server!, 'close');
  await expect(ask(address)).rejects.toThrow('ECONNREFUSED');
});

test.each([
  { until: 'before it answers', begins: false },
  { until: 'in the middle of the answer', begins: true },
])('askRegistryLog ends with its signal, $until', async ({ begins }) => {
  const stop = new AbortController();
  server = createServer((_, response) => {
    if (begins) response.write('{"decisions":');
    setImmediate(() => stop.abort(new Error('stopped')));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  await expect(ask(`127.0.0.1:${port}`, stop.signal)).rejects.toThrow();
});

test.each([
  { who: 'Salvor', headers: { [VERSION_HEADER]: '1.0.0' }, isThere: true },
  { who: 'something else', headers: {}, isThere: false },
])('isRegistryThere looks whether $who answers', async ({ headers, isThere }) => {
  server = createServer((request, response) => {
    response.writeHead(request.url === '/v2/' ? 200 : 404, headers).end('{}');
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const { signal } = new AbortController();
  expect(await isRegistryThere(`http://127.0.0.1:${port}`, { signal })).toBe(isThere);
  server.closeAllConnections();
  await once(server.close(), 'close');
  expect(await isRegistryThere(`http://127.0.0.1:${port}`, { signal })).toBe(false);
});
