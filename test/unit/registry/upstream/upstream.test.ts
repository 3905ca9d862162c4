import { afterEach, describe, expect, it } from 'vitest';
import type { Budgets } from '../../../../src/registry/budgets.ts';
import type { Endpoint } from '../../../../src/registry/upstream/endpoint.ts';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { Upstream, type AskOptions } from '../../../../src/registry/upstream/upstream.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { freePort } from '../../../support/ports.ts';
import { waitFor } from '../../../support/wait.ts';
import {
  beyondTheTestMs,
  closedAfterwards,
  endpointOf,
  quickBudgets as budgets,
  serve,
} from './upstream-scene.ts';
import { WebServer, type Handler } from './web-server.ts';

expectNoLeaks();

/** How far the clock of endpoints is ahead. */
let skippedMs = 0;

afterEach(() => {
  skippedMs = 0;
});

const answering =
  (status: number, headers: Record<string, string> = {}): Handler =>
  (_, response) =>
    response.writeHead(status, headers).end(`said ${status}`);
/** Alive, but without luck for content. */
const resetting: Handler = (message, response) => {
  if (message.url === '/v2/') response.end();
  else message.socket.resetAndDestroy();
};
const silent: Handler = () => undefined;

interface Place {
  readonly url: string;
  readonly forwardsCredentials?: boolean;
  readonly headers?: Record<string, string>;
  readonly guard?: AddressGuard;
}

function chainOf(places: readonly (Place | WebServer)[], some: Partial<Budgets> = {}): Upstream {
  const all = { ...budgets, ...some };
  const endpoints = places.map((place) => {
    const { forwardsCredentials, guard, headers } = place as Place;
    const now = (): number => Date.now() + skippedMs;
    return endpointOf(place.url, { budgets: all, forwardsCredentials, guard, headers, now });
  });
  const upstream = new Upstream(
    { name: 'registry.test', peers: 'fallback', budgets: all },
    { endpoints },
  );
  return closedAfterwards(upstream);
}

async function ask(
  upstream: Upstream,
  options: Partial<AskOptions> & { headers?: Record<string, string> } = {},
): Promise<{ status: number; endpoint: number | undefined; text: string }> {
  const { headers = {}, ...others } = options;
  const response = await upstream.ask(
    { method: 'GET', path: '/v2/a/manifests/1', headers },
    { signal: new AbortController().signal, ...others },
  );
  const { endpoint, status } = response;
  return { status, endpoint, text: await response.body.text() };
}

async function deadUrl(): Promise<string> {
  return `http://127.0.0.1:${await freePort()}`;
}

const withCredentials = { headers: { authorization: 'Bearer client' } };

describe('Upstream with several endpoints', () => {
  it('Upstream asks its endpoints in order, and no other when one gives it', async () => {
    const [first, second] = [await serve(answering(200)), await serve(answering(200))];
    expect(await ask(chainOf([first, second]))).toMatchObject({ status: 200, endpoint: 0 });
    expect(second.requests).toEqual([]);
  });

  it.each([
    ['does not have it', answering(404)],
    ['has it no more', answering(410)],
    ['limits the rate', answering(429)],
    ['answers 500', answering(500)],
    ['answers 503', answering(503)],
    ['answers something odd', answering(304)],
    ['resets', resetting],
    ['is silent', silent],
  ])('Upstream asks the next endpoint when one %s', async (_, handler) => {
    const [first, second] = [await serve(handler), await serve(answering(200))];
    expect(await ask(chainOf([first, second]))).toMatchObject({ status: 200, endpoint: 1 });
    expect(first.requests.length).toBeGreaterThan(0);
    await waitFor(() => first.openConnections <= 1);
  });

  it('Upstream leaves an endpoint in outage out while another is up', async () => {
    const second = await serve(answering(200));
    const upstream = chainOf([{ url: await deadUrl() }, second]);
    await ask(upstream);
    expect(upstream.endpoints[0]?.outage?.cause.kind).toBe('refused');
    expect(upstream.outage).toBeUndefined();
    let troubles = 0;
    expect(await ask(upstream, { onTrouble: () => (troubles += 1) })).toMatchObject({
      endpoint: 1,
    });
    expect(troubles).toBe(0);
  });

  it('Upstream is in outage when all endpoints are, for the reason of the last', async () => {
    const second = await serve((message) => message.socket.resetAndDestroy());
    const upstream = chainOf([{ url: await deadUrl() }, second]);
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'reset', isProven: true });
    expect(upstream.outage?.cause.kind).toBe('reset');
    upstream.recordSaved();
    expect(upstream.outage?.savedRequests).toBe(1);
  });

  it('Upstream asks all endpoints at once while all are in outage, once each', async () => {
    let isDown = true;
    const handler: Handler = (message, response) => {
      if (isDown) message.socket.resetAndDestroy();
      else if (message.url !== '/v2/') response.end('back');
    };
    const [first, second] = [await serve(resetting), await serve(handler)];
    const patient = { outageAnswerMs: beyondTheTestMs, upstreamHeadersMs: beyondTheTestMs };
    const upstream = chainOf([first, second], patient);
    await expect(ask(upstream)).rejects.toMatchObject({ isProven: true });
    expect(upstream.outage).toBeDefined();
    const asked = second.requests.length;
    await expect(ask(upstream)).rejects.toMatchObject({ isProven: true });
    expect(second.requests.length).toBe(asked + 1);
    isDown = false;
    first.handler = silent;
    expect(await ask(upstream)).toMatchObject({ text: 'back', endpoint: 1 });
    expect(upstream.outage).toBeUndefined();
    // The first one is silent: nobody waits for that, and it is let go.
    await waitFor(() => first.openConnections === 0);
  });

  it('Upstream has it nowhere only if all endpoints say so, and says it as the last', async () => {
    const [first, second] = [await serve(answering(410)), await serve(answering(404))];
    expect(await ask(chainOf([first, second]))).toMatchObject({ status: 404, text: 'said 404' });
  });

  it.each([
    ['refuses', async () => ({ url: await deadUrl() }), { kind: 'refused', isProven: true }],
    ['answers 500', async () => serve(answering(500)), { kind: 'server_error', isProven: true }],
    ['limits the rate', async () => serve(answering(429)), { kind: 'rate_limited' }],
  ])('Upstream fails when one endpoint %s and others do not have it', async (_, make, failure) => {
    const missing = await serve(answering(404));
    const failing = await make();
    await expect(ask(chainOf([missing, failing]))).rejects.toMatchObject(failure);
    const upstream = chainOf([failing, missing]);
    await expect(ask(upstream)).rejects.toMatchObject(failure);
    // The same when it is only known to fail.
    await expect(ask(upstream)).rejects.toMatchObject(failure);
  });

  it('Upstream takes "not found" over an endpoint that talks nonsense', async () => {
    const [odd, missing] = [await serve(answering(204)), await serve(answering(404))];
    expect(await ask(chainOf([odd, missing]))).toMatchObject({ status: 404 });
    expect(await ask(chainOf([missing, odd]))).toMatchObject({ status: 404 });
  });

  it('Upstream is not proven down by one endpoint if another may be alive', async () => {
    const lucky = await serve((message, response) => {
      if (message.headers['x-luck'] === 'bad') message.socket.resetAndDestroy();
      else response.end('fine');
    });
    const upstream = chainOf([lucky, { url: await deadUrl() }]);
    const others: Promise<unknown>[] = [];
    const asking = ask(upstream, {
      headers: { 'x-luck': 'bad' },
      onTrouble: () => void others.push(ask(upstream)),
    });
    await expect(asking).rejects.toMatchObject({ kind: 'reset', isProven: false });
    await Promise.all(others);
  });

  it.each([
    { takesMs: [300, 300], givenMs: [300, 300] },
    { takesMs: [100, 500], givenMs: [300, 500] },
    { takesMs: [600, 0], givenMs: [300] },
  ])('Upstream has one time for all endpoints together: $takesMs of 600 ms', async (times) => {
    let nowMs = 0;
    const givenMs: (number | undefined)[] = [];
    const endpoints = times.takesMs.map((takesMs) => {
      const ask: Endpoint['ask'] = async (_, { headersMs }) => {
        givenMs.push(headersMs);
        nowMs += takesMs;
        throw new UpstreamFailure('timeout', 'it said nothing');
      };
      return { ask, outage: undefined, host: 'cache.test' } as Partial<Endpoint> as Endpoint;
    });
    const upstream = new Upstream(
      { name: 'registry.test', peers: 'fallback', budgets: { upstreamHeadersMs: 600 } },
      { endpoints, now: () => nowMs },
    );
    await expect(ask(upstream)).rejects.toMatchObject({ kind: 'timeout' });
    expect(givenMs).toEqual(times.givenMs);
  });

  it('Upstream asks no further endpoint for a client that has left', async () => {
    const [first, second] = [await serve(silent), await serve(answering(200))];
    const leaving = new AbortController();
    const asking = ask(chainOf([first, second]), { signal: leaving.signal });
    await waitFor(() => first.requests.length === 1);
    leaving.abort();
    await expect(asking).rejects.toMatchObject({ kind: 'cancelled' });
    expect(second.requests).toEqual([]);
  });

  it('Upstream begins with the endpoint that it is told to', async () => {
    const [first, second] = [await serve(answering(200)), await serve(answering(200))];
    const upstream = chainOf([first, second]);
    expect(await ask(upstream, { endpoint: 1 })).toMatchObject({ endpoint: 1 });
    await second.close();
    expect(await ask(upstream, { endpoint: 1 })).toMatchObject({ endpoint: 0 });
  });

  it('Upstream counts a broken body against the endpoint that gave it', async () => {
    const [first, second] = [await serve(answering(200)), await serve(answering(200))];
    const upstream = chainOf([first, second]);
    const cut = new UpstreamFailure('cut', 'it broke off');
    const body = { endpoint: 1, origin: second.host };
    upstream.recordBodyFailure(cut, body);
    skippedMs = budgets.proofGapMs;
    upstream.recordBodyFailure(cut, body);
    expect(upstream.endpoints.map(({ outage }) => outage?.cause.kind)).toEqual([undefined, 'cut']);
  });
});

describe('Upstream and credentials', () => {
  it('Upstream sends credentials to no endpoint that is not to have them', async () => {
    const [cache, home] = [await serve(answering(404)), await serve(answering(200))];
    const upstream = chainOf([{ url: cache.url, forwardsCredentials: false }, home]);
    await ask(upstream, withCredentials);
    expect(JSON.stringify(cache.requests)).not.toContain('client');
    expect(home.requests[0]?.headers.authorization).toBe('Bearer client');
  });

  it.each([401, 403])('Upstream goes on when others refuse with %i', async (status) => {
    const challenge = { 'www-authenticate': 'Bearer realm="http://cache.test/"' };
    const cache = await serve(answering(status, challenge));
    const home = await serve(answering(200));
    const places = [
      { url: cache.url, forwardsCredentials: false },
      { url: cache.url, headers: { authorization: 'Basic robot' } },
    ];
    for (const place of places) {
      expect(await ask(chainOf([place, home]), withCredentials)).toMatchObject({ endpoint: 1 });
      // Nor is it passed on where there is nobody else.
      const failure = { kind: 'bad_answer', status };
      await expect(ask(chainOf([place]), withCredentials)).rejects.toMatchObject(failure);
      const missing = await serve(answering(404));
      expect(await ask(chainOf([missing, place]))).toMatchObject({ status: 404 });
      const dead = { url: await deadUrl() };
      await expect(ask(chainOf([dead, place]))).rejects.toMatchObject({ isProven: true });
    }
  });

  it.each([401, 403])("Upstream passes the registry's own %i on", async (status) => {
    const [home, cache] = [await serve(answering(status)), await serve(answering(200))];
    const upstream = chainOf([home, { url: cache.url, forwardsCredentials: false }]);
    expect(await ask(upstream)).toMatchObject({ status, endpoint: 0 });
    expect(await ask(upstream, withCredentials)).toMatchObject({ status, endpoint: 0 });
    expect(cache.requests).toEqual([]);
  });

  it('Upstream blames a forbidden address only where nothing else is known', async () => {
    const forbidden = { url: await deadUrl(), guard: new AddressGuard([]) };
    const dead = { url: await deadUrl() };
    await expect(ask(chainOf([dead, forbidden]))).rejects.toMatchObject({ kind: 'refused' });
    await expect(ask(chainOf([forbidden]))).rejects.toMatchObject({ kind: 'forbidden_address' });
  });
});

describe('Upstream and rate limits', () => {
  it('Upstream asks an endpoint no more with credentials that it limits', async () => {
    const handler: Handler = (message, response) => {
      const isLimited = message.headers.authorization === 'Bearer client';
      const headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '3;w=21600' };
      if (isLimited) response.writeHead(429, { ...headers, 'retry-after': '30' }).end();
      else response.writeHead(200, headers).end();
    };
    const hub = await serve(handler);
    const upstream = chainOf([hub]);
    const limited = { kind: 'rate_limited', status: 429, retryAfter: '30' };
    await expect(ask(upstream, withCredentials)).rejects.toMatchObject(limited);
    await expect(ask(upstream, withCredentials)).rejects.toMatchObject(limited);
    expect(hub.requests.length).toBe(1);
    expect(await ask(upstream)).toMatchObject({ status: 200 });
    expect(upstream.outage).toBeUndefined();
    expect(upstream.endpoints[0]?.rateLimit).toMatchObject({
      limit: 100,
      remaining: 3,
      windowSeconds: 21_600,
    });
  });

  it('Upstream does not take limits of a redirect target for its own', async () => {
    const headers = { 'ratelimit-remaining': '0', 'retry-after': '30' };
    const cdn = await serve(answering(429, headers));
    const hub = await serve(answering(307, { location: `${cdn.url}/blob` }));
    const upstream = chainOf([hub]);
    for (let round = 1; round <= 2; round += 1) {
      await expect(ask(upstream)).rejects.toMatchObject({ kind: 'rate_limited' });
      expect(hub.requests.length).toBe(round);
    }
    expect(upstream.endpoints[0]?.rateLimit).toBeUndefined();
  });
});
