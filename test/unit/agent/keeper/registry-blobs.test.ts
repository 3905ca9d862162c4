import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { AnonymousTokens } from '../../../../src/agent/keeper/anonymous-tokens.ts';
import { FetchError } from '../../../../src/agent/keeper/fetch-error.ts';
import { RegistryBlobs } from '../../../../src/agent/keeper/registry-blobs.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';

expectNoLeaks();

const content = Buffer.from('some bytes of a blob');
const { signal } = new AbortController();
const wanted = {
  registry: '127.0.0.1:5000',
  repository: 'team/app',
  digest: digestOf(content),
  isManifest: false,
  offsetBytes: 0,
};
const guard = new AddressGuard(['127.0.0.0/8']);
const tokens = new AnonymousTokens({ guardOf: () => guard });
const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A registry that answers as told, and what it was asked. */
async function registry(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ blobs: RegistryBlobs; url: string; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    asked.push(request);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const address = `127.0.0.1:${port}`;
  return {
    blobs: new RegistryBlobs({ address, headersMs: 500 }, { tokens }),
    url: `http://${address}`,
    asked,
  };
}

async function bytesOf(opened: { readonly chunks: AsyncIterable<Uint8Array> }): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of opened.chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

async function failureOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.catch((failure: unknown) => failure);
  return error instanceof FetchError ? error.reason : `no FetchError: ${String(error)}`;
}

describe('RegistryBlobs.open', () => {
  test('asks the registry on this node in the name of the upstream, without credentials', async () => {
    const { blobs, asked } = await registry((_, response) => response.end(content));
    expect(await bytesOf(await blobs.open(wanted, { signal }))).toEqual(content);
    expect(asked[0]?.url).toBe(`/v2/team/app/blobs/${wanted.digest}?ns=127.0.0.1%3A5000`);
    expect(asked[0]?.headers).toMatchObject({ 'accept-encoding': 'identity' });
    expect(asked[0]?.headers.authorization).toBeUndefined();
  });

  test('asks for manifests where they are', async () => {
    const { blobs, asked } = await registry((_, response) => response.end(content));
    await bytesOf(await blobs.open({ ...wanted, isManifest: true }, { signal }));
    expect(asked[0]?.url).toMatch(/^\/v2\/team\/app\/manifests\//);
    expect(asked[0]?.headers.accept).toContain('application/vnd.oci.image.index.v1+json');
  });

  test('goes on at an offset, and takes nothing else for it', async () => {
    const { blobs } = await registry(({ headers }, response) => {
      expect(headers.range).toBe('bytes=5-');
      response.writeHead(206, { 'content-range': `bytes 5-19/${content.byteLength}` });
      response.end(content.subarray(5));
    });
    const opened = await blobs.open({ ...wanted, offsetBytes: 5 }, { signal });
    expect(opened.sizeBytes).toBe(content.byteLength);
    expect(await bytesOf(opened)).toEqual(content.subarray(5));

    const whole = await registry((_, response) => response.end(content));
    const request = whole.blobs.open({ ...wanted, offsetBytes: 5 }, { signal });
    expect(await failureOf(request)).toBe('upstream_down');
    const other = await registry((_, response) => {
      response.writeHead(206, { 'content-range': `bytes 4-19/${content.byteLength}` });
      response.end(content.subarray(4));
    });
    const shifted = other.blobs.open({ ...wanted, offsetBytes: 5 }, { signal });
    expect(await failureOf(shifted)).toBe('upstream_down');
  });

  test.each([
    [401, 'needs_credentials'],
    [403, 'needs_credentials'],
    [404, 'nowhere'],
    [429, 'upstream_down'],
    [503, 'upstream_down'],
  ])('takes %i for %s', async (status, reason) => {
    const { blobs } = await registry((_, response) => response.writeHead(status).end());
    expect(await failureOf(blobs.open(wanted, { signal }))).toBe(reason);
  });

  test('gets the token that everyone may have', async () => {
    const { blobs, url, asked } = await registry((request, response) => {
      if (request.url?.startsWith('/token') === true) {
        response.end(JSON.stringify({ token: 'for-everyone' }));
      } else if (request.headers.authorization === 'Bearer for-everyone') {
        response.end(content);
      } else {
        const challenge = `Bearer realm="${url}/token",service="registry.test"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      }
    });
    expect(await bytesOf(await blobs.open(wanted, { signal }))).toEqual(content);
    const asking = new URL(asked[1]?.url ?? '', url);
    expect(asking.searchParams.get('service')).toBe('registry.test');
    expect(asking.searchParams.get('scope')).toBe('repository:team/app:pull');
  });

  test('needs credentials where the token for everyone is refused, or opens nothing', async () => {
    for (const status of [200, 401]) {
      const { blobs, url } = await registry((request, response) => {
        if (request.url?.startsWith('/token') === true) {
          response.writeHead(status).end(JSON.stringify({ token: 'useless' }));
        } else {
          const challenge = `Bearer realm="${url}/token"`;
          response.writeHead(401, { 'www-authenticate': challenge }).end();
        }
      });
      expect(await failureOf(blobs.open(wanted, { signal }))).toBe('needs_credentials');
    }
  });

  test('does not wait longer than it was told for an answer', async () => {
    const { blobs } = await registry(() => undefined);
    expect(await failureOf(blobs.open(wanted, { signal }))).toBe('upstream_down');
  });

  test('keeps the reason of an abort', async () => {
    const { blobs } = await registry(() => undefined);
    const stop = new AbortController();
    const opened = blobs.open(wanted, { signal: stop.signal });
    stop.abort(new Error('The agent stops'));
    await expect(opened).rejects.toThrow('The agent stops');
  });
});
