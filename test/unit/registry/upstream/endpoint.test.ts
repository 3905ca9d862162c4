import type { ServerResponse } from 'node:http';
import { describe, expect, it } from 'vitest';
import { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { Endpoint, type EndpointAskOptions } from '../../../../src/registry/upstream/endpoint.ts';
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

expectNoLeaks();

function endpointAt(url: string, options: Parameters<typeof endpointOf>[1] = {}): Endpoint {
  return closedAfterwards(endpointOf(url, options));
}

async function ask(
  endpoint: Endpoint,
  options: Partial<EndpointAskOptions> & { headers?: Record<string, string> } = {},
): Promise<{ status: number; text: string }> {
  const { headers = {}, ...others } = options;
  const response = await endpoint.ask(
    { method: 'GET', path: '/v2/a/manifests/1', headers },
    { signal: new AbortController().signal, ...others },
  );
  return { status: response.status, text: await response.body.text() };
}

/** Quick to look, and then with all the time of the test. */
const patient = { outageAnswerMs: 40, upstreamHeadersMs: beyondTheTestMs };
/** How a look at one ends that has too much to do for it. */
const tooSlow = new UpstreamFailure('timeout', 'it said nothing');

/** A clock that is read at a later time each time. */
function ticking(): () => number {
  let nowMs = 0;
  return () => (nowMs += budgets.proofGapMs);
}

const content = (url: string | undefined): boolean => url !== '/v2/';

describe('Upstream', () => {
  it.each([200, 206, 401, 403, 404])('Endpoint takes %i for an answer', async (status) => {
    const server = await serve((_, response) => response.writeHead(status).end('said'));
    const endpoint = endpointAt(server.url);
    expect(await ask(endpoint)).toEqual({ status, text: 'said' });
    expect(server.requests.length).toBe(1);
    expect(endpoint.hasAnswered).toBe(true);
  });

  it('Endpoint repeats a request once, on a connection of its own', async () => {
    const server = await serve((_, response) => {
      if (server.requests.length === 2) response.writeHead(502).end();
      else response.end(`answer ${server.requests.length}`);
    });
    const endpoint = endpointAt(server.url);
    await ask(endpoint);
    let troubles = 0;
    const { text } = await ask(endpoint, { onTrouble: () => (troubles += 1) });
    expect([text, troubles]).toEqual(['answer 3', 1]);
    const [, failed, repeated] = server.requests;
    expect(repeated?.remotePort).not.toBe(failed?.remotePort);
    expect(server.requests[2]?.headers.connection).toBe('close');
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint gives up on one that refuses, with the proof of two attempts', async () => {
    const endpoint = endpointAt(`http://127.0.0.1:${await freePort()}`);
    let troubles = 0;
    await expect(ask(endpoint, { onTrouble: () => (troubles += 1) })).rejects.toMatchObject({
      kind: 'refused',
      isProven: true,
    });
    expect(troubles).toBe(2);
    expect(endpoint.outage?.cause.kind).toBe('refused');
    expect(endpoint.hasAnswered).toBe(false);
  });

  it('Endpoint is asked once only while it is known to be down', async () => {
    const port = await freePort();
    const endpoint = endpointAt(`http://127.0.0.1:${port}`);
    await expect(ask(endpoint)).rejects.toBeInstanceOf(UpstreamFailure);
    let troubles = 0;
    await expect(ask(endpoint, { onTrouble: () => (troubles += 1) })).rejects.toMatchObject({
      isProven: true,
    });
    expect(troubles).toBe(1);
  });

  it('Endpoint that answers ends its outage', async () => {
    let isDown = true;
    const server = await serve((message, response) => {
      if (isDown) message.socket.resetAndDestroy();
      else response.end('back');
    });
    const endpoint = endpointAt(server.url);
    await expect(ask(endpoint)).rejects.toMatchObject({ kind: 'reset' });
    expect(endpoint.outage).toBeDefined();
    isDown = false;
    expect((await ask(endpoint)).text).toBe('back');
    expect(endpoint.outage).toBeUndefined();
  });

  it.each([
    [429, 'rate_limited'],
    [408, 'rate_limited'],
    [300, 'bad_answer'],
    [304, 'bad_answer'],
    [204, 'bad_answer'],
  ])('Endpoint that answers %i is asked no second time and is not down', async (status, kind) => {
    const server = await serve((_, response) => {
      response.writeHead(status, { 'retry-after': '7' }).end();
    });
    const endpoint = endpointAt(server.url);
    await expect(ask(endpoint)).rejects.toMatchObject({ kind, status });
    if (kind === 'rate_limited') {
      await expect(ask(endpoint)).rejects.toMatchObject({ retryAfter: '7' });
    }
    expect(endpoint.outage).toBeUndefined();
    expect(endpoint.hasAnswered).toBe(true);
  });

  it('Endpoint that fails for one repository alone is not down', async () => {
    const server = await serve((message, response) => {
      response.writeHead(content(message.url) ? 500 : 401).end();
    });
    const endpoint = endpointAt(server.url);
    await expect(ask(endpoint)).rejects.toMatchObject({ kind: 'server_error', isProven: true });
    await waitFor(() => server.requests.some(({ url }) => !content(url)));
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint that is slow but alive is waited for', async () => {
    const waiting: ServerResponse[] = [];
    const server = await serve((message, response) => {
      if (content(message.url)) {
        waiting.push(response);
        return;
      }
      response.writeHead(401).end();
      // Longer by far than an outage may take to be noticed, and no matter how much longer.
      setTimeout(() => waiting[0]?.end('slow'), patient.outageAnswerMs * 2.5);
    });
    const endpoint = endpointAt(server.url, { budgets: patient, lookTimeoutMs: beyondTheTestMs });
    expect((await ask(endpoint)).text).toBe('slow');
    expect(server.requests.filter(({ url }) => !content(url)).length).toBe(1);
    expect(waiting.length).toBe(1);
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint that is slow and alive is not waited for beyond its time', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.writeHead(401).end();
    });
    const endpoint = endpointAt(server.url, { budgets: { upstreamHeadersMs: 150 } });
    await expect(ask(endpoint)).rejects.toMatchObject({ kind: 'timeout' });
    const other = endpointAt(server.url, { budgets: patient });
    await expect(ask(other, { headersMs: 150 })).rejects.toMatchObject({ kind: 'timeout' });
  });

  it('Endpoint that is silent altogether is proven down in the time of an outage', async () => {
    const server = await serve(() => undefined);
    const endpoint = endpointAt(server.url, { budgets: { upstreamHeadersMs: beyondTheTestMs } });
    await expect(ask(endpoint)).rejects.toMatchObject({ kind: 'timeout', isProven: true });
    expect(endpoint.outage?.cause.kind).toBe('timeout');
    await waitFor(() => server.openConnections === 0);
  });

  it('Endpoint ends its waits when its client leaves, and blames nobody', async () => {
    const server = await serve((message, response) => {
      if (!content(message.url)) response.writeHead(401).end();
    });
    const endpoint = endpointAt(server.url);
    const leaving = new AbortController();
    const asking = ask(endpoint, { signal: leaving.signal });
    await waitFor(() => server.requests.length > 0);
    leaving.abort();
    await expect(asking).rejects.toMatchObject({ kind: 'cancelled' });
    await waitFor(() => server.openConnections === 0);
    expect(endpoint.outage).toBeUndefined();
    expect(server.requests.filter(({ url }) => content(url)).length).toBe(1);
  });

  it('Endpoint that answered somebody else meanwhile is not proven down by one request', async () => {
    const server = await serve((message, response) => {
      if (message.headers['x-luck'] === 'bad') message.socket.resetAndDestroy();
      else response.end('fine');
    });
    const endpoint = endpointAt(server.url);
    const lucky: Promise<unknown>[] = [];
    const onTrouble = (): void => void lucky.push(ask(endpoint));
    const unlucky = ask(endpoint, { headers: { 'x-luck': 'bad' }, onTrouble });
    await expect(unlucky).rejects.toMatchObject({ kind: 'reset', isProven: false });
    await Promise.all(lucky);
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint that answered somebody else before it failed is proven down all the same', async () => {
    const held: (() => void)[] = [];
    const server = await serve((message, response) => {
      const reset = (): unknown => message.socket.resetAndDestroy();
      if (message.headers['x-luck'] !== 'bad') response.end('fine');
      else if (held.length === 0) held.push(reset);
      else reset();
    });
    const endpoint = endpointAt(server.url);
    const unlucky = ask(endpoint, { headers: { 'x-luck': 'bad' } });
    const proven = expect(unlucky).rejects.toMatchObject({ kind: 'reset', isProven: true });
    await waitFor(() => held.length > 0);
    await ask(endpoint);
    held[0]!();
    await proven;
  });

  it('Endpoint has one time for all attempts together', async () => {
    let nowMs = 0;
    let firstTakesMs = 0;
    const server = await serve((message, response) => {
      if (!content(message.url)) response.end('alive');
      else if (nowMs === 0) {
        nowMs = firstTakesMs;
        message.socket.resetAndDestroy();
      }
    });
    const asked = (): number => server.requests.filter(({ url }) => content(url)).length;
    const options = { budgets: { upstreamHeadersMs: beyondTheTestMs }, now: () => nowMs };

    firstTakesMs = beyondTheTestMs;
    await expect(ask(endpointAt(server.url, options))).rejects.toMatchObject({ kind: 'reset' });
    expect(asked()).toBe(1);

    // The second one gets what the first has left.
    [nowMs, firstTakesMs] = [0, beyondTheTestMs - 200];
    await expect(ask(endpointAt(server.url, options))).rejects.toMatchObject({ kind: 'timeout' });
    expect(asked()).toBe(3);
  });

  it('Endpoint that answers others is waited for though it is too slow for a look', async () => {
    let waiting: ServerResponse | undefined;
    const server = await serve((message, response) => {
      if (message.headers['x-pace'] === 'slow') waiting = response;
      else response.end('quick');
    });
    let looks = 0;
    const look = async (): Promise<never> => {
      looks += 1;
      expect((await ask(endpoint)).text).toBe('quick');
      if (looks === 4) waiting?.end('slow');
      throw tooSlow;
    };
    const endpoint = endpointAt(server.url, { look, budgets: patient, now: ticking() });
    expect((await ask(endpoint, { headers: { 'x-pace': 'slow' } })).text).toBe('slow');
    expect(looks).toBe(4);
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint that falls silent while it is waited for is proven down', async () => {
    const server = await serve((message, response) => {
      if (message.headers['x-pace'] !== 'slow' && content(message.url)) response.end('quick');
    });
    let looks = 0;
    const look = async (): Promise<never> => {
      looks += 1;
      if (looks === 1) await ask(endpoint);
      throw tooSlow;
    };
    const endpoint = endpointAt(server.url, { look, budgets: patient, now: ticking() });
    const asking = ask(endpoint, { headers: { 'x-pace': 'slow' } });
    await expect(asking).rejects.toMatchObject({ kind: 'timeout' });
    expect(looks).toBe(2);
    expect(endpoint.outage?.cause.kind).toBe('timeout');
  });

  it('Endpoint passes no challenge on that names a dead token service', async () => {
    const server = await serve((_, response) => {
      response.writeHead(401, { 'www-authenticate': 'Bearer realm="http://dead.test/"' }).end();
    });
    const dead = new UpstreamFailure('token_service', 'dead', { isProven: true });
    const endpoint = endpointAt(server.url, { tokenFailure: dead });
    await expect(ask(endpoint)).rejects.toBe(dead);
    expect(endpoint.outage).toBeUndefined();
    // With credentials the 401 is about them.
    const { status } = await ask(endpoint, { headers: { authorization: 'Bearer x' } });
    expect(status).toBe(401);
  });
});
