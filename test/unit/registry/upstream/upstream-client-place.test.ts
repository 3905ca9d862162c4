import { describe, expect, it } from 'vitest';
import { UpstreamClient } from '../../../../src/registry/upstream/upstream-client.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import {
  clientOf as newClient,
  closedAfterwards,
  request,
  serve,
  textOf,
} from './upstream-scene.ts';

expectNoLeaks();

function clientOf(url: string, headers: Record<string, string> = {}): UpstreamClient {
  return closedAfterwards(newClient(url, { headers }));
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
