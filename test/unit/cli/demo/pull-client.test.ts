import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { machineArchitecture } from '../../../../src/cli/demo/platform.ts';
import { pullImage } from '../../../../src/cli/demo/pull-client.ts';
import { checkImage } from '../../../../src/cli/demo/stored-image.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';

expectNoLeaks();

function digestOf(bytes: string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function described(bytes: string): { digest: string; size: number } {
  return { digest: digestOf(bytes), size: bytes.length };
}

const config = '{"os":"linux"}';
const layer = 'the layer';
const manifest = JSON.stringify({
  config: described(config),
  layers: [described(layer), described(layer)],
});
const index = JSON.stringify({
  manifests: [
    {
      ...described('of another platform'),
      platform: { os: 'windows', architecture: machineArchitecture() },
    },
    { ...described(manifest), platform: { os: 'linux', architecture: machineArchitecture() } },
  ],
});
const root = digestOf(index);

let content: Map<string, string>;
let requests: string[];
let token: string | undefined;
let server: Server;
let baseUrl: string;
let layout: string;

beforeEach(async () => {
  content = new Map([index, manifest, config, layer].map((bytes) => [digestOf(bytes), bytes]));
  content.set('v1', index);
  requests = [];
  token = undefined;
  server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://registry');
    requests.push(`${request.method} ${pathname} ${searchParams.get('ns') ?? ''}`.trimEnd());
    if (pathname === '/token') {
      response.end(JSON.stringify({ token: `for ${searchParams.get('scope')}` }));
      return;
    }
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
      const challenge = `Bearer realm="${baseUrl}/token",scope="repository:team/app:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return;
    }
    const name = pathname.split('/').at(-1) ?? '';
    const bytes = content.get(name);
    if (bytes === undefined) {
      response.writeHead(404).end('it is gone');
      return;
    }
    const digest = name === 'v1' ? root : name;
    const headers = { 'docker-content-digest': digest, 'salvor-source': `source of ${name}` };
    response.writeHead(200, headers).end(bytes);
  });
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  layout = await mkdtemp(join(tmpdir(), 'salvor-pull-client-'));
  await mkdir(join(layout, 'ingest'));
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(layout, { recursive: true });
});

async function pull(reference: string): ReturnType<typeof pullImage> {
  const signal = AbortSignal.timeout(5000);
  return pullImage({
    baseUrl,
    namespace: 'registry.test',
    repository: 'team/app',
    reference,
    layout,
    signal,
  });
}

describe('pullImage', () => {
  test('asks as containerd does, and keeps what it got', async () => {
    const pulled = await pull('v1');

    expect(requests).toEqual([
      'HEAD /v2/team/app/manifests/v1 registry.test',
      `GET /v2/team/app/manifests/${root} registry.test`,
      `GET /v2/team/app/manifests/${digestOf(manifest)} registry.test`,
      `GET /v2/team/app/blobs/${digestOf(config)} registry.test`,
      `GET /v2/team/app/blobs/${digestOf(layer)} registry.test`,
    ]);
    expect(pulled.root).toBe(root);
    expect(pulled.sources.get(digestOf(layer))).toBe(`source of ${digestOf(layer)}`);
    const path = join(layout, 'blobs', digestOf(layer).replace(':', '/'));
    expect(await readFile(path, 'utf8')).toBe(layer);
    expect(await readdir(join(layout, 'ingest'))).toEqual([]);
  });

  test('fetches a token that anybody gets', async () => {
    token = 'for repository:team/app:pull';

    expect(await pull(root)).toMatchObject({ root });
    expect(requests.filter((line) => line.startsWith('GET /token'))).toHaveLength(1);
  });

  test.each([
    { name: 'a layer', bytes: layer },
    { name: 'a manifest', bytes: manifest },
  ])('finds out that the bytes of $name are wrong', async ({ bytes }) => {
    content.set(digestOf(bytes), `${bytes.slice(0, -1)}!`);

    await expect(pull('v1')).rejects.toThrow(`Cannot trust ${digestOf(bytes)}`);
    expect(await readdir(join(layout, 'blobs', 'sha256'))).not.toContain(digestOf(bytes).slice(7));
  });

  test('says what the registry said', async () => {
    content.delete(digestOf(layer));

    await expect(pull('v1')).rejects.toThrow(`Cannot get blobs/${digestOf(layer)}: 404 it is gone`);
  });
});

describe('checkImage', () => {
  const blobs = (): string => join(layout, 'blobs');

  test('recomputes the digest of every blob that is there', async () => {
    await pull('v1');

    const found = await checkImage(blobs(), root);

    expect(found).toEqual(
      [index, manifest, config, layer].map((bytes) => ({
        digest: digestOf(bytes),
        sizeBytes: bytes.length,
      })),
    );
  });

  test.each([
    { name: 'is wrong', change: async (path: string) => writeFile(path, 'the player') },
    { name: 'is missing', change: async (path: string) => rm(path) },
  ])('fails when a blob $name', async ({ change }) => {
    await pull('v1');
    const path = join(blobs(), digestOf(layer).replace(':', '/'));
    await change(path);

    await expect(checkImage(blobs(), root)).rejects.toThrow(path);
  });

  test('fails when no platform of an index is there', async () => {
    await pull('v1');
    await rm(join(blobs(), digestOf(manifest).replace(':', '/')));

    await expect(checkImage(blobs(), root)).rejects.toThrow('Cannot find any manifest');
  });
});
