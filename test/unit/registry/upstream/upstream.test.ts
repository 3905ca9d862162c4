import { afterEach, describe, expect, it } from 'vitest';
import type { Budgets } from '../../../../src/registry/budgets.ts';
import { AddressGuard } from '../../../../src/registry/upstream/address-guard.ts';
import { UpstreamClient } from '../../../../src/registry/upstream/upstream-client.ts';
import { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { UpstreamHealth } from '../../../../src/registry/upstream/upstream-health.ts';
import { Upstream } from '../../../../src/registry/upstream/upstream.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { freePort } from '../../../support/ports.ts';
import { waitFor } from '../../../support/wait.ts';
import { WebServer, type Handler } from './web-server.ts';

expectNoLeaks();

/** Shorter than the real ones, in about the same proportions. */
const budgets: Budgets = {
  connectMs: 300,
  hedgeMs: 40,
  peerHeadersMs: 200,
  outageAnswerMs: 400,
  upstreamHeadersMs: 5000,
  stallMs: 500,
  locateMs: 100,
  proofGapMs: 30,
  probeIntervalMs: 60_000,
};

const open: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const one of open.reverse()) await one.close();
  open.length = 0;
});

async function serve(handler: Handler): Promise<WebServer> {
  const server = await WebServer.start(handler);
  open.push(server);
  return server;
}

function upstreamAt(
  url: string,
  options: { tokenFailure?: UpstreamFailure; budgets?: Partial<Budgets> } = {},
): Upstream {
  const all = { ...budgets, ...options.budgets };
  const client = new UpstreamClient(
    { url, connections: 4, connectMs: all.connectMs, redirectRetryMs: 1000 },
    { guard: new AddressGuard(['127.0.0.0/8']) },
  );
  const health = new UpstreamHealth(
    {
      proofGapMs: all.proofGapMs,
      probeIntervalMs: all.probeIntervalMs,
      probeTimeoutMs: all.outageAnswerMs / 2,
    },
    { client, log: silentLogger },
  );
  const upstream = new Upstream(
    { name: 'registry.test', peers: 'fallback', budgets: all },
    { client, health, tokenServices: { check: async () => options.tokenFailure } },
  );
  open.push(upstream);
  return upstream;
}

async function ask(
  upstream: Upstream,
  options: { signal?: AbortSignal; onTrouble?: () => void; headers?: Record<string, string> } = {},
): Promise<{ status: number; text: string }> {
  const { headers = {}, ...others } = options;
  const response = await upstream.ask(
    { method: 'GET', path: '/v2/a/manifests/1', headers },
    { signal: new AbortController().signal, ...others },
  );
  return { status: response.status, text: await response.body.text() };
}

const content = (url: string | undefined): boolean => url !== '/v2/';

describe('Upstream', () => {
  it.each([200, 206, 401, 403, 404])('Upstream takes %i for an answer', async (status) => {
    const server = await serve((_, response) => response.writeHead(status).end('said'));
    const upstream = upstreamAt(server.url);
    expect(await ask(upstream)).toEqual({ status, text: 'said' });
    expect(server.requests.length).toBe(1);
    expect(upstream.hasAnswered).toBe(true);
  });

  it('Upstream repeats a request once, on a connection of its own', async () => {
    const server = await serve((_, response) => {
      if (server.requests.length === 2) response.writeHead(502).end();
      else response.end(`answer ${server.requests.length}`);
    });
    const upstream = upstreamAt(server.url);
    await ask(upstream);
    let troubles = 0;
    const { text } = await ask(upstream, { onTrouble: () => (troubles += 1) });
    expect([text, troubles]).toEqual(['answer 3', 1]);
    const [, failed, repeated] = server.requests;
    expect(repeated?.remotePort).not.toBe(failed?.remotePort);
    expect(server.requests[2]?.headers.connection).toBe('close');
    expect(upstream.health.outage).toBeUndefined();
  });

  it('Upstream gives up on one that refuses, with the proof of two attempts', async () => {
    const upstream = upstreamAt(`http://127.0.0.1:${await freePort()}`);
    let troubles = 0;
    await expect(ask(upstream, { onTrouble: () => (troubles += 1) })).rejects.toMatchObject({
      kind: 'refused',
      isProven: true,
    });
    expect(troubles).toBe(2);
    expect(upstream.health.outage?.cause.kind).toBe('refused');
    expect(upstream.hasAnswered).toBe(false);
  });

  it('Upstream is asked once only while it is known to be down', async () => {
    const port = await freePort();
    const upstream = upstreamAt(`http://127.0.0.1:${port}`);
    await expect(ask(upstream)).rejects.toBeInstanceOf(UpstreamFailure);
    let troubles = 0;
    await expect(ask(upstream, { onTrouble: () => (troubles += 1) })).rejects.toMatchObject({
      isProven: true,
    });
    expect(troubles).toBe(1);
  });

  it('Upstream that answers ends its outage', async () => {
    let isDown = true;
    const server = await serve((message, response) => {
      if (isDown) message.socket.resetAndDestroy();
      else response.end('back');
    });
    const upstream = upstreamAt(server.url);
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'reset' });
    expect(upstream.health.outage).toBeDefined();
    isDown = false;
    expect((await ask(upstream)).text).toBe('back');
    expect(upstream.health.outage).toBeUndefined();
  });

  it.each([
    [429, 'rate_limited'],
    [408, 'rate_limited'],
    [300, 'bad_answer'],
    [304, 'bad_answer'],
    [204, 'bad_answer'],
  ])('Upstream that answers %i is asked no second time and is not down', async (status, kind) => {
    const server = await serve((_, response) => {
      response.writeHead(status, { 'retry-after': '7' }).end();
    });
    const upstream = upstreamAt(server.url);
    await expect(ask(upstream)).rejects.toMatchObject({ kind, status });
    if (kind === 'rate_limited') {
      await expect(ask(upstream)).rejects.toMatchObject({ retryAfter: '7' });
    }
    expect(upstream.health.outage).toBeUndefined();
    expect(upstream.hasAnswered).toBe(true);
  });

  it('Upstream that fails for one repository alone is not down', async () => {
    const server = await serve((message, response) => {
      response.writeHead(content(message.url) ? 500 : 401).end();
    });
    const upstream = upstreamAt(server.url);
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'server_error', isProven: true });
    await waitFor(() => server.requests.some(({ url }) => !content(url)));
    expect(upstream.health.outage).toBeUndefined();
  });

  it('Upstream that is slow but alive is waited for', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.writeHead(401).end();
      // Far longer than an outage may take to be noticed.
      else setTimeout(() => response.end('slow'), budgets.outageAnswerMs * 2.5);
    });
    const upstream = upstreamAt(server.url);
    expect((await ask(upstream)).text).toBe('slow');
    expect(server.requests.filter(({ url }) => !content(url)).length).toBe(1);
    expect(upstream.health.outage).toBeUndefined();
  });

  it('Upstream that is slow and alive is not waited for beyond its time', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.writeHead(401).end();
    });
    const upstream = upstreamAt(server.url, { budgets: { upstreamHeadersMs: 150 } });
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'timeout' });
  });

  it('Upstream that is silent altogether is proven down in the time of an outage', async () => {
    const server = await serve(() => undefined);
    const upstream = upstreamAt(server.url);
    const startedAt = performance.now();
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'timeout', isProven: true });
    // Bounded far below the time that a slow but living upstream has.
    expect(performance.now() - startedAt).toBeLessThan(budgets.upstreamHeadersMs / 2);
    expect(upstream.health.outage?.cause.kind).toBe('timeout');
    await waitFor(() => server.openConnections === 0);
  });

  it('Upstream ends its waits when its client leaves, and blames nobody', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.writeHead(401).end();
    });
    const upstream = upstreamAt(server.url);
    const leaving = new AbortController();
    const asking = ask(upstream, { signal: leaving.signal });
    await waitFor(() => server.requests.length > 0);
    leaving.abort();
    await expect(asking).rejects.toMatchObject({ kind: 'cancelled' });
    await waitFor(() => server.openConnections === 0);
    expect(upstream.health.outage).toBeUndefined();
    expect(server.requests.filter(({ url }) => content(url)).length).toBe(1);
  });

  it('Upstream that answered somebody else meanwhile is not proven down by one request', async () => {
    const server = await serve((message, response) => {
      if (message.headers['x-luck'] === 'bad') message.socket.resetAndDestroy();
      else response.end('fine');
    });
    const upstream = upstreamAt(server.url);
    const lucky: Promise<unknown>[] = [];
    const onTrouble = (): void => void lucky.push(ask(upstream));
    const unlucky = ask(upstream, { headers: { 'x-luck': 'bad' }, onTrouble });
    await expect(unlucky).rejects.toMatchObject({ kind: 'reset', isProven: false });
    await Promise.all(lucky);
    expect(upstream.health.outage).toBeUndefined();
  });

  it('Upstream that answered somebody else before it failed is proven down all the same', async () => {
    const held: (() => void)[] = [];
    const server = await serve((message, response) => {
      const reset = (): unknown => message.socket.resetAndDestroy();
      if (message.headers['x-luck'] !== 'bad') response.end('fine');
      else if (held.length === 0) held.push(reset);
      else reset();
    });
    const upstream = upstreamAt(server.url);
    const unlucky = ask(upstream, { headers: { 'x-luck': 'bad' } });
    const proven = expect(unlucky).rejects.toMatchObject({ kind: 'reset', isProven: true });
    await waitFor(() => held.length > 0);
    await ask(upstream);
    held[0]!();
    await proven;
  });

  it('Upstream has one time for all attempts together', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.end('alive');
    });
    const upstreamHeadersMs = 600;
    const upstream = upstreamAt(server.url, { budgets: { upstreamHeadersMs } });
    const startedAt = performance.now();
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'timeout' });
    expect(performance.now() - startedAt).toBeLessThan(upstreamHeadersMs * 1.8);
    expect(server.requests.filter(({ url }) => content(url)).length).toBe(1);
  });

  it('Upstream that answers others is waited for though it is too slow for a look', async () => {
    const server = await serve((message, response) => {
      const isSlow = message.headers['x-pace'] === 'slow';
      if (isSlow) setTimeout(() => response.end('slow'), budgets.outageAnswerMs * 3);
      else if (content(message.url)) response.end('quick');
    });
    const upstream = upstreamAt(server.url);
    const over = new AbortController();
    const slow = ask(upstream, { headers: { 'x-pace': 'slow' } }).finally(() => over.abort());
    while (!over.signal.aborted) expect((await ask(upstream)).text).toBe('quick');
    expect((await slow).text).toBe('slow');
    expect(upstream.health.outage).toBeUndefined();
  });

  it('Upstream that falls silent while it is waited for is proven down', async () => {
    const server = await serve((message, response) => {
      if (message.headers['x-pace'] !== 'slow' && content(message.url)) response.end('quick');
    });
    const upstream = upstreamAt(server.url);
    const startedAt = performance.now();
    const asking = ask(upstream, { headers: { 'x-pace': 'slow' } });
    await ask(upstream);
    await expect(asking).rejects.toMatchObject({ kind: 'timeout' });
    expect(performance.now() - startedAt).toBeLessThan(budgets.upstreamHeadersMs / 2);
    expect(upstream.health.outage?.cause.kind).toBe('timeout');
  });

  it('Upstream passes no challenge on that names a dead token service', async () => {
    const server = await serve((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Bearer realm="http://dead.test/"' }).end();
    });
    const dead = new UpstreamFailure('token_service', 'dead', { isProven: true });
    const upstream = upstreamAt(server.url, { tokenFailure: dead });
    await expect(ask(upstream)).rejects.toBe(dead);
    expect(upstream.health.outage).toBeUndefined();
    // With credentials the 401 is about them.
    const { status } = await ask(upstream, { headers: { authorization: 'Bearer x' } });
    expect(status).toBe(401);
  });
});
