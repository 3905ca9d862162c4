import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { sha256 } from '../support/layer.ts';
import { pushImage } from '../support/push.ts';
import { skopeoCopy } from '../support/skopeo.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('skopeo');
// References cannot have a port in the middle, so this registry has a name.
const registryName = 'registry.test';
const repository = 'team/app';

let upstream: DockerRegistry;
let cluster: Cluster;
let image: Image;
let copies = 0;

/** One copy, checked by every digest, and what the node logged about it. */
async function copyFrom(
  node: ClusterNode,
  path: string,
): Promise<ReturnType<typeof node.requests>> {
  copies += 1;
  const directory = join(scope().directory, `copy-${copies}`);
  const before = node.requests().length;

  const from = `docker://127.0.0.1:${node.registryPort}/${path}`;
  await skopeoCopy(scope(), { from, to: `dir:${directory}` });

  expect(await readFile(join(directory, 'manifest.json'))).toEqual(image.manifest);
  const wanted = image.blobs.map(({ digest }) => digest.replace('sha256:', ''));
  const files = (await readdir(directory)).filter((name) => /^[0-9a-f]{64}$/.test(name));
  expect(files.toSorted()).toEqual(wanted.toSorted());
  for (const name of files) {
    expect(sha256(await readFile(join(directory, name)))).toBe(`sha256:${name}`);
  }
  return node.requests().slice(before);
}

const forms = [
  { form: 'the registry in the path, by tag', path: () => `${registryName}/${repository}:v1` },
  {
    form: 'the registry in the path, by digest',
    path: () => `${registryName}/${repository}@${image.digest}`,
  },
  { form: 'the default upstream, by tag', path: () => `${repository}:v1` },
  { form: 'the default upstream, by digest', path: () => `${repository}@${image.digest}` },
];

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  image = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 100_000 }, { randomBytes: 5_000_000, seed: 'second' }],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b'],
    upstreams: { [registryName]: { url: upstream.url } },
    registry: { defaultUpstream: registryName },
  });
});

describe('skopeo copies from the mirror', () => {
  test.each(forms)('while the registry is up: $form', async ({ path }) => {
    const requests = await copyFrom(cluster.node('b'), path());

    const pulls = requests.filter(({ status }) => status === 200);
    expect(pulls.length).toBeGreaterThan(image.blobs.length);
    const blobs = pulls.filter(({ url }) => url.includes('/blobs/'));
    expect(blobs.map(({ source }) => source)).toEqual(image.blobs.map(() => 'upstream'));
  });

  describe('in the outage', () => {
    beforeAll(async () => {
      await cluster.node('a').containerd.pull(`${registryName}/${repository}:v1`);
      await upstream.kill('SIGKILL');
    });

    test.each(forms)('$form', async ({ path }) => {
      const requests = await copyFrom(cluster.node('b'), path());

      const blobs = requests.filter(({ url }) => url.includes('/blobs/'));
      expect(blobs.map(({ source }) => source)).toEqual(image.blobs.map(() => 'node/a'));
      expect(requests.every(({ end }) => end === 'complete')).toBe(true);
    });

    test('and is told that an image is unavailable, not unknown, where no node has it', async () => {
      const from = `docker://127.0.0.1:${cluster.node('b').registryPort}/${repository}:other`;
      const copy = skopeoCopy(scope(), { from, to: `dir:${join(scope().directory, 'none')}` });
      await expect(copy).rejects.toThrow(/503 Service Unavailable/);
    });
  });
});
