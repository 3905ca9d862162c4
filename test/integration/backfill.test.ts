import { access } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import type { BackfillStatus } from '../../src/agent/keeper/backfill-progress.ts';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { renderHostsToml } from '../support/containerd-config.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('backfill');
const base = [{ randomBytes: 200_000 }, { randomBytes: 3_000_000, seed: 'base' }];

let upstream: DockerRegistry;
let cluster: Cluster;
let old: PushedImage;
let built: PushedImage;

async function push(repository: string, layers: Parameters<typeof buildImage>[0]['layers']) {
  const image = await buildImage({ directory: scope().directory, layers });
  return pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
}

function reference(repository: string): string {
  return `${upstream.host}/${repository}:v1`;
}

/** A pull as before Salvor was there, and what containerd does to the layers afterwards. */
async function pullOldWithoutSalvor(node: ClusterNode): Promise<void> {
  await node.containerd.writeHosts('');
  await node.containerd.pull(reference('team/old'));
  await node.containerd.writeHosts(renderHostsToml([{ url: node.url }]));
  await waitFor(async () => (await missing(node, old)).length === base.length, {
    what: 'that the layers are discarded',
  });
}

async function missing(node: ClusterNode, image: PushedImage): Promise<string[]> {
  const digests = image.blobs.map(({ digest }) => digest);
  const there = await Promise.all(
    digests.map((digest) =>
      access(node.containerd.blobPath(digest)).then(
        () => true,
        () => false,
      ),
    ),
  );
  return digests.filter((_, index) => there[index] === false);
}

async function statusOf(node: ClusterNode): Promise<BackfillStatus> {
  const response = await fetch(`http://127.0.0.1:${node.agentAdminPort}/status`);
  return ((await response.json()) as { backfill: BackfillStatus }).backfill;
}

/** Something runs from the image, as far as containerd's records tell. */
async function use(node: ClusterNode, repository: string): Promise<void> {
  const { snapshotter } = node.containerd;
  const id = `runs-${repository.replace('/', '-')}`;
  const command = ['containers', 'create', '--snapshotter', snapshotter];
  await node.containerd.ctr([...command, reference(repository), id]);
}

async function untilComplete(node: ClusterNode, image: PushedImage): Promise<void> {
  await waitFor(async () => (await missing(node, image)).length === 0, {
    what: 'all content of the image',
    timeoutMs: 30_000,
    detail: () =>
      node.agent
        .lines()
        .map(({ text }) => text)
        .join('\n'),
  });
}

describe('backfill with layers discarded', () => {
  beforeAll(async () => {
    upstream = await startDockerRegistry(scope(), { name: 'upstream' });
    old = await push('team/old', base);
    built = await push('team/new', [...base, { randomBytes: 500_000, seed: 'new' }]);
    cluster = await startCluster(scope(), {
      nodes: ['a', 'b', 'c'],
      upstreams: { [upstream.host]: { url: upstream.url } },
      discardUnpackedLayers: true,
      agent: { backfill: { intervalMs: 1000, maxUsedPercent: 100 } },
    });
  });

  test('completes images from before Salvor from the upstream, once something runs from them', async () => {
    const a = cluster.node('a');
    await pullOldWithoutSalvor(a);
    const status = await waitFor(async () => {
      const found = await statusOf(a);
      return found.incompleteImages === 1 && found;
    });
    expect(status).toMatchObject({ discards: true, left: { missing: { blobs: 0 } } });
    expect(await missing(a, old)).toHaveLength(2);

    const [before] = await a.containerd.listImages();
    await use(a, 'team/old');
    await untilComplete(a, old);
    for (const { digest } of old.blobs) await a.containerd.verifyBlob(digest);
    // Nothing about the image has changed: to kubelet it is not a new one.
    expect(await a.containerd.listImages()).toEqual([before]);
    const asked = a.requests().filter(({ url }) => url.includes('/blobs/'));
    expect(asked.map(({ source }) => source)).toEqual(['upstream', 'upstream']);
    const done = await waitFor(async () => {
      const found = await statusOf(a);
      return found.incompleteImages === 0 && found;
    });
    expect(done.done.blobs).toBe(2);
  });

  test('completes a new image on an old base from the node that has it', async () => {
    const b = cluster.node('b');
    await pullOldWithoutSalvor(b);
    await b.containerd.pull(reference('team/new'));
    expect(await missing(b, built)).toHaveLength(2);
    const before = b.requests().length;

    await use(b, 'team/new');
    await untilComplete(b, built);
    await waitFor(async () => (await statusOf(b)).done.blobs === 2);
    expect(b.requests().slice(before), 'the upstream is not asked').toEqual([]);
    const { agentAdminPort } = b;
    const metrics = await (await fetch(`http://127.0.0.1:${agentAdminPort}/metrics`)).text();
    expect(metrics).toMatch(/salvor_agent_backfill_restored_total\{[^}]*damage="missing"[^}]*\} 2/);
  });

  test('leaves layers that live as long as their image, and can be pulled elsewhere', async () => {
    const { containerd } = cluster.node('a');
    // Deleting a lease collects garbage.
    await containerd.ctr(['leases', 'create', '--id', 'garbage']);
    await containerd.ctr(['leases', 'delete', '--sync', 'garbage']);
    expect(await missing(cluster.node('a'), old)).toEqual([]);
    expect(await containerd.ingests()).toEqual([]);

    await upstream.kill('SIGKILL');
    const c = cluster.node('c');
    await c.containerd.pull(reference('team/new'));
    await c.containerd.pull(reference('team/old'));
    const sources = c.requests().filter(({ url }) => url.includes('/blobs/'));
    for (const { source } of sources) expect(source).toMatch(/^node\//);

    await containerd.ctr(['containers', 'delete', 'runs-team-old']);
    await containerd.removeImage(reference('team/old'));
    await waitFor(async () => (await containerd.blobs()).length === 0, {
      what: 'that all blobs of the image are freed',
    });
  });
});
