import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('dead-registry');
const repository = 'team/app';

let upstream: DockerRegistry;
let cluster: Cluster;
let image: PushedImage;

/** One PullImage, seen from all sides. */
async function expectCleanPull(node: ClusterNode, reference: string): Promise<void> {
  const warningsBefore = node.containerd.warnings().length;
  const requestsBefore = node.requests().length;
  await node.containerd.pull(reference);
  for (const { digest } of image.blobs) await node.containerd.verifyBlob(digest);
  expect(await node.containerd.isUnpacked(reference)).toBe(true);
  expect(node.containerd.warnings().slice(warningsBefore)).toEqual([]);
  const requests = node.requests().slice(requestsBefore);
  const blobs = requests.filter(({ url }) => url.includes('/blobs/'));
  const paths = blobs.map(({ url }) => url);
  expect(paths, 'one GET per blob').toHaveLength(new Set(paths).size);
  expect(blobs.map(({ status }) => status)).toEqual(blobs.map(() => 200));
  expect(requests.every(({ end }) => end === 'complete')).toBe(true);
}

describe.each([
  { signal: 'SIGKILL' as const, what: 'is gone' },
  { signal: 'SIGSTOP' as const, what: 'accepts and says nothing' },
])('a registry that $what', ({ signal }) => {
  beforeAll(async () => {
    upstream = await startDockerRegistry(scope(), { name: `upstream-${signal}` });
    const built = await buildImage({
      directory: scope().directory,
      layers: [
        { randomBytes: 300_000 },
        { randomBytes: 3_000_000, seed: 'b' },
        { randomBytes: 12_000_000 },
      ],
    });
    image = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, built);
    cluster = await startCluster(scope(), {
      nodes: ['a', 'b', 'c'].map((name) => `${name}-${signal.toLowerCase()}`),
      upstreams: { [upstream.host]: { url: upstream.url } },
    });
  });

  afterAll(async () => {
    if (signal === 'SIGSTOP') await upstream.kill('SIGCONT');
  });

  test('does not stop nodes that never had the image', async () => {
    const [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    const byTag = `${upstream.host}/${repository}:v1`;
    const byDigest = `${upstream.host}/${repository}@${image.digest}`;
    await expectCleanPull(a, byTag);
    expect(a.requests().every(({ source }) => source === 'upstream')).toBe(true);

    await upstream.kill(signal);
    await expectCleanPull(b, byTag);
    await expectCleanPull(c, byDigest);

    const blobSources = [...b.requests(), ...c.requests()]
      .filter(({ url, method }) => url.includes('/blobs/') && method === 'GET')
      .map(({ source }) => source);
    expect(blobSources.length).toBe(2 * image.blobs.length);
    for (const source of blobSources) expect(source).toMatch(/^node\//);

    // imagePullPolicy: Always needs no more than this while all is there.
    const before = b.requests().length;
    await b.containerd.pull(byTag);
    expect(b.requests().slice(before)).toMatchObject([{ method: 'HEAD', status: 200 }]);
  });
});
