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

/** Deleting a lease does. */
async function collectGarbage({ containerd }: ClusterNode): Promise<void> {
  await containerd.ctr(['leases', 'create', '--id', 'garbage']);
  await containerd.ctr(['leases', 'delete', '--sync', 'garbage']);
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
      nodes: ['a', 'b', 'c', 'd'],
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

  test('completes them from the node that has them, and they stay', async () => {
    const b = cluster.node('b');
    await pullOldWithoutSalvor(b);
    await use(b, 'team/old');
    await untilComplete(b, old);
    await waitFor(async () => (await statusOf(b)).done.blobs === 2);
    expect(b.requests(), 'the upstream is not asked').toEqual([]);
    await collectGarbage(b);
    expect(await missing(b, old)).toEqual([]);
    expect(await b.containerd.ingests()).toEqual([]);
    const url = `http://127.0.0.1:${b.agentAdminPort}/metrics`;
    const metrics = await (await fetch(url)).text();
    expect(metrics).toMatch(/salvor_agent_backfill_restored_total\{[^}]*damage="missing"[^}]*\} 2/);
  });

  test('completes a new image on an old base', async () => {
    const c = cluster.node('c');
    await pullOldWithoutSalvor(c);
    await c.containerd.pull(reference('team/new'));
    expect(await missing(c, built)).toHaveLength(2);
    const before = c.requests().length;
    await use(c, 'team/new');
    await untilComplete(c, built);
    expect(c.requests().slice(before), 'the upstream is not asked').toEqual([]);
  });

  test('has made up what a new node needs in an outage, and goes with its images', async () => {
    await upstream.kill('SIGKILL');
    const d = cluster.node('d');
    await d.containerd.pull(reference('team/new'));
    await d.containerd.pull(reference('team/old'));
    const sources = d.requests().filter(({ url }) => url.includes('/blobs/'));
    for (const { source } of sources) expect(source).toMatch(/^node\//);

    const { containerd } = cluster.node('a');
    await containerd.ctr(['containers', 'delete', 'runs-team-old']);
    await containerd.removeImage(reference('team/old'));
    await waitFor(async () => (await containerd.blobs()).length === 0, {
      what: 'that all blobs of the image are freed',
    });
  });
});
