import { afterEach, describe, expect, it } from 'vitest';
import { AddressGuard } from '../../../../src/registry/upstream/address-guard.ts';
import {
  UpstreamClient,
  type UpstreamRequest,
  type UpstreamResponse,
} from '../../../../src/registry/upstream/upstream-client.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { WebServer, type Handler } from './web-server.ts';

expectNoLeaks();

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

function clientOf(url: string, headers: Record<string, string> = {}): UpstreamClient {
  const client = new UpstreamClient(
    { url, headers, connections: 4, connectMs: 2000, redirectRetryMs: 1000 },
    { guard: new AddressGuard(['127.0.0.0/8']) },
  );
  open.push(client);
  return client;
}

function request(options: Partial<UpstreamRequest> = {}): UpstreamRequest {
  return {
    method: 'GET',
    path: '/v2/a/manifests/1',
    headers: {},
    headersTimeoutMs: 5000,
    signal: new AbortController().signal,
    ...options,
  };
}

async function textOf(response: UpstreamResponse): Promise<string> {
  return response.body.text();
}

describe('UpstreamClient and the place that it asks', () => {
  it.each([
    ['', '/v2/a/manifests/1', '/v2/'],
    ['/', '/v2/a/manifests/1', '/v2/'],
    ['/v2', '/v2/a/manifests/1', '/v2/'],
    ['/v2/hub', '/v2/hub/a/manifests/1', '/v2/hub/'],
    ['/api/docker/hub/v2/', '/api/docker/hub/v2/a/manifests/1', '/api/docker/hub/v2/'],
  ])('UpstreamClient puts the path %j of its URL in place of /v2', async (path, asked, probed) => {
    const server = await serve((_, response) => response.end());
    const client = clientOf(server.url + path);
    await textOf(await client.send(request()));
    await textOf(await client.send(request({ path: '/v2/' })));
    expect(server.requests.map(({ url }) => url)).toEqual([asked, probed]);
  });

  it('UpstreamClient sends its own headers to its own host alone, over those of a request', async () => {
    const elsewhere = await serve((_, response) => response.end('bytes'));
    const server = await serve((_, response) => {
      response.writeHead(307, { location: elsewhere.url }).end();
    });
    const headers = { authorization: 'Basic robot', 'user-agent': 'robot', 'x-token': 'robot' };
    const client = clientOf(server.url, headers);
    expect(client.hasOwnCredentials).toBe(true);
    const own = { authorization: 'Bearer client', 'user-agent': 'client' };
    await textOf(await client.send(request({ headers: own })));
    expect(server.requests[0]?.headers).toMatchObject(headers);
    expect(elsewhere.requests[0]?.headers['user-agent']).toBe('client');
    expect(elsewhere.requests[0]?.headers).not.toHaveProperty('authorization');
    expect(JSON.stringify(elsewhere.requests)).not.toContain('robot');
  });
});
