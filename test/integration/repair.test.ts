import { readFile, rm, writeFile } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('repair');
const repository = 'team/app';

let upstream: DockerRegistry;
let cluster: Cluster;
let image: PushedImage;
let reference: string;

function logOf(node: ClusterNode, message: string): Record<string, unknown>[] {
  return node.agent
    .lines()
    .filter(({ text }) => text.includes(`"msg":"${message}"`))
    .map(({ text }) => JSON.parse(text) as Record<string, unknown>);
}

async function untilSound(node: ClusterNode, digest: string): Promise<void> {
  await waitFor(
    () =>
      node.containerd.verifyBlob(digest).then(
        () => true,
        () => false,
      ),
    { what: `sound bytes of ${digest}`, timeoutMs: 30_000 },
  );
}

async function corrupt(node: ClusterNode, digest: string): Promise<void> {
  const bytes = await readFile(node.containerd.blobPath(digest));
  await writeFile(node.containerd.blobPath(digest), bytes.fill(1, 0, 100));
}

describe('repair', () => {
  beforeAll(async () => {
    upstream = await startDockerRegistry(scope(), { name: 'upstream' });
    const built = await buildImage({
      directory: scope().directory,
      layers: [{ randomBytes: 200_000 }, { randomBytes: 4_000_000, seed: 'b' }],
    });
    const index = buildIndex([built]);
    image = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, index);
    reference = `${upstream.host}/${repository}:v1`;
    cluster = await startCluster(scope(), {
      nodes: ['a', 'b', 'c'],
      upstreams: { [upstream.host]: { url: upstream.url } },
      agent: {
        integrity: { sweepIntervalMs: 1000 },
        backfill: { intervalMs: 1000, maxUsedPercent: 100 },
      },
    });
    for (const name of ['a', 'b']) await cluster.node(name).containerd.pull(reference);
    await upstream.kill('SIGSTOP');
    scope().defer(() => upstream.kill('SIGCONT'));
  });

  test('replaces wrong content from a node that has it, and it can be pulled from there', async () => {
    const [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    const digests = [image.digest, ...image.blobs.map(({ digest }) => digest)];
    for (const digest of digests) await corrupt(a, digest);
    for (const digest of digests) await untilSound(a, digest);
    await waitFor(() => logOf(a, 'Completed content').length === digests.length);
    for (const { damage, sources } of logOf(a, 'Completed content')) {
      expect({ damage, sources }).toEqual({ damage: 'corrupt', sources: ['node/b'] });
    }
    expect(await a.containerd.isUnpacked(reference)).toBe(true);

    await b.agent.kill('SIGKILL');
    await c.containerd.pull(reference);
    for (const digest of digests) await c.containerd.verifyBlob(digest);
    const blobs = c.requests().filter(({ url }) => url.includes('/blobs/'));
    expect(new Set(blobs.map(({ source }) => source))).toEqual(new Set(['node/a']));
    await b.startAgent();
  });

  test('brings back content whose file is gone', async () => {
    const [a] = cluster.nodes as [ClusterNode];
    const layer = image.blobs.find(({ size }) => size > 1_000_000)!.digest;
    for (const digest of [image.digest, layer]) await rm(a.containerd.blobPath(digest));
    for (const digest of [image.digest, layer]) await untilSound(a, digest);
    const exported = `${scope().directory}/image.tar`;
    await a.containerd.ctr(['images', 'export', exported, reference]);
    const lost = logOf(a, 'Completed content').filter(({ damage }) => damage === 'lost');
    expect(lost).toHaveLength(2);
  });

  test('touches nothing when nobody has the right bytes', async () => {
    const [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    await Promise.all([b, c].map((node) => node.agent.kill('SIGKILL')));
    const config = image.blobs.find(({ size }) => size < 2000)!.digest;
    const wrong = await readFile(a.containerd.blobPath(config));
    wrong.fill(2, 0, 50);
    await writeFile(a.containerd.blobPath(config), wrong);
    const failure = await waitFor(() => logOf(a, 'Cannot complete content')[0], {
      timeoutMs: 40_000,
    });
    expect(failure).toMatchObject({ digest: config, damage: 'corrupt' });
    expect(await readFile(a.containerd.blobPath(config))).toEqual(wrong);
    expect(await a.containerd.imageStatus(reference)).toBeDefined();
  });
});
