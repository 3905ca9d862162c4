import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { upstreamFactory } from '../../../src/cli/upstream-factory.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { createRegistryMetrics } from '../../../src/registry/registry-metrics.ts';
import { registryStatus } from '../../../src/registry/registry-status.ts';
import type { Upstream } from '../../../src/registry/upstream/upstream.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { freePort } from '../../support/ports.ts';
import { closedAfterwards, serve } from '../registry/upstream/upstream-scene.ts';
import type { Handler, WebServer } from '../registry/upstream/web-server.ts';

expectNoLeaks();

const missing: Handler = (_, response) =>
  response.writeHead(404, { 'ratelimit-limit': '9;w=60', 'ratelimit-remaining': '4;w=60' }).end();

/** The upstream of one name, and what is told of it. */
async function scene(name: string, settings: object, mirrors: readonly object[] = []) {
  const described = mirrors.length > 0 ? {} : { [name]: settings };
  const env = {
    SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(described),
    SALVOR_REGISTRY_MIRRORS: JSON.stringify(mirrors),
  };
  const { registry } = await loadConfig({ env });
  const register = new Registry();
  const upstreams: Upstream[] = [];
  const metrics = createRegistryMetrics(register, {
    configured: () => Object.keys(registry.upstreams),
    upstreams: () =>
      upstreams.map(({ endpoints, outage }) => ({
        name,
        outageSinceMs: outage?.sinceMs,
        rateLimitRemaining: endpoints.flatMap(({ rateLimit }) => rateLimit?.remaining ?? []),
      })),
  });
  const upstream = upstreamFactory(registry, { log: silentLogger, metrics })(name);
  upstreams.push(upstream);
  closedAfterwards(upstream);
  const ask = async (): Promise<number> => {
    const response = await upstream.ask(
      {
        method: 'GET',
        path: '/v2/a/manifests/1',
        headers: { authorization: 'Bearer client', 'user-agent': 'client' },
      },
      { signal: new AbortController().signal },
    );
    await response.body.dump();
    return response.status;
  };
  const status = () =>
    registryStatus({
      upstreams: { all: () => upstreams },
      savings: { totals: { fallbacks: 0, savedRequests: 0 } },
      budget: { usedBytes: 0 },
    }).upstreams;
  return { ask, register, status };
}

const sent = (server: WebServer): unknown => server.requests[0]?.headers.authorization;

describe('upstreamFactory', () => {
  it("upstreamFactory keeps a client's credentials for the registry's own host", async () => {
    const [cache, home] = [await serve(missing), await serve(missing)];
    const endpoints = [{ url: `${cache.url}/v2/hub` }, { url: home.url }];
    const { ask } = await scene(home.host, { endpoints });
    expect(await ask()).toBe(404);
    expect([sent(cache), sent(home)]).toEqual([undefined, 'Bearer client']);
    expect(cache.requests[0]?.url).toBe('/v2/hub/a/manifests/1');
  });

  it('upstreamFactory gives credentials to a single URL, wherever it is', async () => {
    const [one, other] = [await serve(missing), await serve(missing)];
    await (await scene('a.test', { url: one.url })).ask();
    await (await scene('a.test', { endpoints: [{ url: other.url }] })).ask();
    expect([sent(one), sent(other)]).toEqual(['Bearer client', 'Bearer client']);
  });

  it('upstreamFactory gives credentials or not where it is told', async () => {
    const [one, other] = [await serve(missing), await serve(missing)];
    const endpoints = [
      { url: one.url, credentials: 'forward' },
      { url: other.url, credentials: 'none' },
    ];
    await (await scene(other.host, { endpoints })).ask();
    expect([sent(one), sent(other)]).toEqual(['Bearer client', undefined]);
  });

  it('upstreamFactory sends the headers of the configuration and of a file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'salvor-factory-'));
    try {
      const headersFile = join(directory, 'headers');
      await writeFile(headersFile, 'Authorization: Basic robot\nX-A: file\n');
      const server = await serve(missing);
      const settings = { url: server.url, headersFile, headers: { 'X-A': 'config' } };
      await (await scene('a.test', settings)).ask();
      const headers = { authorization: 'Basic robot', 'x-a': 'config', 'user-agent': 'client' };
      expect(server.requests[0]?.headers).toMatchObject(headers);
      const unreadable = { url: server.url, headersFile: join(directory, 'none') };
      await expect(scene('a.test', unreadable)).rejects.toThrow('ENOENT');
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('upstreamFactory says which registry is meant where a URL stands for several', async () => {
    const [cache, home] = [await serve(missing), await serve(missing)];
    const endpoints = [{ url: `${cache.url}/v2/hub`, namespace: true }, { url: home.url }];
    await (await scene('a.test:5000', { endpoints })).ask();
    expect(cache.requests[0]?.url).toBe('/v2/hub/a/manifests/1?ns=a.test%3A5000');
    expect(home.requests[0]?.url).toBe('/v2/a/manifests/1');
  });

  it('upstreamFactory asks mirrors before a registry that nothing is said about', async () => {
    const found: Handler = (_, response) => response.writeHead(200).end();
    const [first, second] = [await serve(missing), await serve(found)];
    const mirrors = [{ url: first.url }, { url: second.url, namespace: true }];
    const { ask, status } = await scene('b.test', {}, mirrors);
    expect(await ask()).toBe(200);
    expect([sent(first), sent(second)]).toEqual([undefined, undefined]);
    expect(second.requests[0]?.url).toBe('/v2/a/manifests/1?ns=b.test');
    expect(status()).toMatchObject([
      { endpoints: [{ host: first.host }, { host: second.host }, { host: 'b.test' }] },
    ]);
  });

  it('upstreamFactory lets an endpoint lead to no guarded address but its own', async () => {
    const other = await serve(missing);
    const home = await serve((_, response) => {
      response.writeHead(307, { location: `http://127.0.0.2:${other.port}/` }).end();
    });
    const dead = `http://127.0.0.2:${await freePort()}`;
    const { ask } = await scene('a.test', { endpoints: [{ url: dead }, { url: home.url }] });
    await expect(ask()).rejects.toMatchObject({ kind: 'refused' });
    const alone = await scene('a.test', { endpoints: [{ url: home.url }] });
    await expect(alone.ask()).rejects.toMatchObject({ kind: 'forbidden_address' });
  });
});

describe('upstreamFactory and proxies', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it('upstreamFactory refuses a proxy that is none at once', async () => {
    vi.stubEnv('HTTPS_PROXY', 'ftp://user:secret@proxy.test');
    await expect(scene('a.test', {})).rejects.toThrow(/^HTTPS_PROXY of the environment is no URL/);
  });
});

describe('registryStatus', () => {
  it('registryStatus shows what each of several endpoints is like', async () => {
    const cache = await serve(missing);
    const dead = new URL(`http://127.0.0.1:${await freePort()}`);
    const headers = { 'X-Key': 'c2VjcmV0' };
    const endpoints = [{ url: `${cache.url}/v2/hub`, headers }, { url: dead.origin }];
    const { ask, register, status } = await scene('a.test', { endpoints });
    await expect(ask()).rejects.toMatchObject({ kind: 'refused', isProven: true });
    const at = expect.stringMatching(/^\d{4}-.*Z$/) as string;
    expect(status()).toEqual([
      {
        registry: 'a.test',
        state: 'up',
        endpoints: [
          {
            host: cache.host,
            state: 'up',
            rateLimit: { limit: 9, remaining: 4, windowSeconds: 60, at },
          },
          {
            host: dead.host,
            state: 'outage',
            since: at,
            cause: 'refused',
            reason: `${dead.host} refused the connection (ECONNREFUSED)`,
            savedRequests: 0,
          },
        ],
      },
    ]);
    const text = await register.metrics();
    expect(text).toContain('upstream_rate_limit_remaining{registry="a.test"} 4');
    // One of two is no outage of the registry.
    expect(text).toContain('salvor_registry_upstream_outage{registry="a.test"} 0');
    expect(text).not.toMatch(/^salvor_registry_upstream_outages_total\{/m);
  });

  it('registryStatus shows a single endpoint as the upstream that it is', async () => {
    const server = await serve(missing);
    const { ask, status } = await scene('a.test', { url: server.url });
    expect(status()).toEqual([{ registry: 'a.test', state: 'unknown' }]);
    await ask();
    expect(status()).toMatchObject([
      { registry: 'a.test', state: 'up', rateLimit: { limit: 9, remaining: 4 } },
    ]);
    expect(status()[0]).not.toHaveProperty('endpoints');
  });
});
