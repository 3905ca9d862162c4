import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Digest } from '../../src/oci/digest.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { get, pullImage, type PulledImage } from '../support/oci-client.ts';
import { PrefixFront } from '../support/prefix-front.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('upstream-chain');
const registryName = 'registry.test';
const robot = `Basic ${Buffer.from('robot:c2VjcmV0').toString('base64')}`;
const client = 'Basic Y2xpZW50';

let cache: DockerRegistry;
let home: DockerRegistry;
let front: PrefixFront;
let node: DirectoryNode;
let holder: DirectoryNode;
const images = new Map<string, Image>();

/** An image in the registry itself, and in the cache before it where that has it. */
async function publish(repository: string, options: { readonly cached: boolean }): Promise<void> {
  const image = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 300_000, seed: repository }],
  });
  const target = { repository, tag: 'v1' };
  await pushImage({ ...target, baseUrl: home.url }, image);
  if (options.cached) await pushImage({ ...target, baseUrl: cache.url }, image);
  images.set(repository, image);
}

beforeAll(async () => {
  cache = await startDockerRegistry(scope(), { name: 'cache' });
  home = await startDockerRegistry(scope(), { name: 'home' });
  await publish('team/app', { cached: true });
  await publish('team/new', { cached: false });
  // Nothing of these is in memory when their time comes.
  await publish('team/later', { cached: true });
  await publish('team/last', { cached: false });
  const frontOptions = { targetPort: cache.port, prefix: '/v2/hub', authorization: robot };
  front = await PrefixFront.start(scope(), frontOptions);
  const upstreams = {
    [registryName]: {
      endpoints: [
        { url: front.url, headers: { Authorization: robot } },
        { url: home.url, credentials: 'forward' },
      ],
    },
  };
  ({ node, holder } = await DirectoryNode.createGroup(scope(), ['node', 'holder'], { upstreams }));
  await Promise.all([node.startAgent(), holder.startAgent()]);
  await node.startRegistry();
});

async function pull(repository: string): Promise<PulledImage> {
  const pulled = await pullImage(
    { baseUrl: node.url, repository, reference: 'v1', ns: registryName },
    { headers: { authorization: client } },
  );
  expect(pulled.digest).toBe(images.get(repository)!.digest);
  return pulled;
}

function sources(pulled: PulledImage): (string | undefined)[] {
  return [...new Set(pulled.contents.map(({ source }) => source))];
}

async function status(): Promise<unknown> {
  const { body } = await get(`http://127.0.0.1:${node.adminPort}/status`);
  return (JSON.parse(body.toString()) as { upstreams: readonly unknown[] }).upstreams[0];
}

/** As containerd would have it, had the holder pulled the image. */
async function giveToHolder(repository: string): Promise<void> {
  const { digest, mediaType, manifest, blobs } = images.get(repository)!;
  await holder.hold(digest, manifest);
  for (const blob of blobs) {
    await holder.hold(blob.digest, 'data' in blob ? blob.data : await readFile(blob.path));
  }
  await holder.observe(`${registryName}/${repository}:v1`, {
    digest: digest as Digest,
    mediaType,
    sizeBytes: manifest.length,
    observedAtMs: Date.now(),
  });
}

// The world gets worse from test to test.
describe('a cache under a path before the registry itself', () => {
  test('is asked first, with its own credentials and not those of clients', async () => {
    expect(sources(await pull('team/app'))).toEqual(['upstream']);
    expect(home.accesses().filter(({ method }) => method === 'GET')).toEqual([]);
    expect(front.requests.length).toBeGreaterThan(0);
    for (const { headers, path } of front.requests) {
      expect(path).toMatch(/^\/v2\/hub\/team\/app\/(manifests|blobs)\//);
      expect(headers.authorization).toBe(robot);
    }
  });

  test('may lack an image that the registry has', async () => {
    expect(sources(await pull('team/new'))).toEqual(['upstream']);
    await waitFor(() =>
      home
        .accesses()
        .some(({ method, path }) => method === 'GET' && path.startsWith('/v2/team/new/blobs/')),
    );
    const nowhere = await get(`${node.url}/v2/team/app/manifests/v2?ns=${registryName}`);
    expect(nowhere.status).toBe(404);
  });

  test('may be dead', async () => {
    await front.stop();
    expect(sources(await pull('team/later'))).toEqual(['upstream']);
    expect(await status()).toMatchObject({
      state: 'up',
      endpoints: [{ state: 'outage', cause: 'refused' }, { state: 'up' }],
    });
    // It might have what the registry lacks, so nobody says that this tag is gone.
    const unknown = await get(`${node.url}/v2/team/app/manifests/v2?ns=${registryName}`);
    expect(unknown.status).toBe(503);
  });

  test('may be dead along with the registry: nodes serve', async () => {
    await giveToHolder('team/last');
    await home.kill('SIGKILL');
    // The manifest is in memory since it was looked at before the tag was answered.
    expect(sources(await pull('team/last')).toSorted()).toEqual(['memory', 'node/holder']);
    expect(await status()).toMatchObject({ state: 'outage', cause: 'refused' });
    const log = node.registry.lines().map(({ text }) => text);
    expect(log.filter((text) => text.includes('upstream outage begins'))).toHaveLength(2);
    const secrets = [robot, client].map((each) => each.replace('Basic ', ''));
    expect(log.filter((text) => secrets.some((secret) => text.includes(secret)))).toEqual([]);
    expect(JSON.stringify(await status())).not.toContain('robot');
  });
});
