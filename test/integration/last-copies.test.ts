import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdLeases } from '../../src/agent/containerd/containerd-leases.ts';
import { rendezvousOrder } from '../../src/discovery/rendezvous.ts';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { get } from '../support/oci-client.ts';
import { sourceProgram } from '../support/program-path.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const scope = suiteScope('last-copies');
const mebibyte = 1024 ** 2;
const copies = { wanted: 2, pollIntervalMs: 1000, releaseAtPercent: 75, dropAtPercent: 80 };

let upstream: DockerRegistry;
let cluster: Cluster;
let a: ClusterNode;
let b: ClusterNode;
let c: ClusterNode;

interface TestImage extends PushedImage {
  readonly reference: string;
  /** Index or manifest, config and layers. */
  readonly content: readonly string[];
}

beforeAll(async () => {
  // A disk of their own, since how full this machine's is must not matter.
  const rootParent = await mountSmallDisk(scope(), { name: 'disk', sizeBytes: 2048 * mebibyte });
  upstream = await startDockerRegistry(scope());
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b', 'c'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    agent: { copies },
    rootParent,
  });
  [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
});

async function push(name: string, layerBytes = 2 * mebibyte): Promise<TestImage> {
  const built = await buildImage({
    directory: scope().directory,
    layers: [
      { randomBytes: layerBytes, seed: name },
      { randomBytes: 1000, seed: `${name} 2` },
    ],
  });
  const repository = `team/${name}`;
  const pushed = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, built);
  const reference = `${upstream.host}/${repository}:v1`;
  const content = [pushed.digest, ...pushed.blobs.map(({ digest }) => digest)];
  return { ...pushed, reference, content };
}

interface Status {
  readonly copies: {
    readonly guardedImages: number;
    readonly heldImages: number;
    readonly heldBytes: number;
    readonly held: readonly { readonly target: string; readonly otherCopies: number }[];
  };
}

async function status(node: ClusterNode): Promise<Status['copies']> {
  const { body } = await get(`http://127.0.0.1:${node.agentAdminPort}/status`);
  return (JSON.parse(body.toString()) as Status).copies;
}

/** Runs something with a node's leases. */
async function withLeases<T>(
  node: ClusterNode,
  body: (leases: ContainerdLeases) => Promise<T>,
): Promise<T> {
  const connection = new ContainerdConnection({ socketPath: node.containerd.socketPath });
  try {
    return await body(new ContainerdLeases(connection));
  } finally {
    connection.close();
  }
}

/** The leases of last copies on a node: ids, and how much each holds. */
async function guards(node: ClusterNode): Promise<{ id: string; target: string; size: number }[]> {
  return withLeases(node, async (leases) => {
    const found = [];
    for (const { id, labels } of await leases.list()) {
      const target = labels['salvor.dev/last-copy'];
      const resources = target === undefined ? undefined : await leases.listResources(id);
      if (target !== undefined) found.push({ id, target, size: resources?.length ?? 0 });
    }
    return found;
  });
}

async function isGuarded(node: ClusterNode, image: TestImage): Promise<boolean> {
  return (await guards(node)).some(
    ({ target, size }) => target === image.digest && size === image.content.length,
  );
}

async function isHeld(node: ClusterNode, image: TestImage): Promise<boolean> {
  return (await status(node)).held.some(({ target }) => target === image.digest);
}

/** How many of an image's blobs are on a node's disk. */
async function blobsOn(node: ClusterNode, image: TestImage): Promise<number> {
  const blobs = new Set(await node.containerd.blobs());
  return image.content.filter((digest) => blobs.has(digest)).length;
}

async function untilGuarded(node: ClusterNode, image: TestImage): Promise<void> {
  await waitFor(() => isGuarded(node, image), { what: `a guard on ${node.name}` });
}

/** All is gone from the disk, as it goes when kubelet removes an image that nobody keeps. */
async function untilFreed(node: ClusterNode, image: TestImage): Promise<void> {
  await waitFor(async () => (await blobsOn(node, image)) === 0, {
    what: `that ${node.name} has freed the image`,
    timeoutMs: 20_000,
  });
}

/** Two nodes have the image, so both guard it; then the runtime of a removes it. */
async function holdOnA(image: TestImage): Promise<void> {
  await a.containerd.pull(image.reference);
  await b.containerd.pull(image.reference);
  await untilGuarded(a, image);
  await a.containerd.removeImage(image.reference);
  await waitFor(() => isHeld(a, image));
  expect(await blobsOn(a, image)).toBe(image.content.length);
}

describe('the last copies of an image', () => {
  test('are kept where the runtime removes one, and served to others in an outage', async () => {
    const image = await push('few');
    await holdOnA(image);
    expect(await a.containerd.imageStatus(image.reference)).toBeUndefined();

    await b.agent.kill('SIGKILL');
    await upstream.kill('SIGKILL');
    await c.containerd.pull(image.reference);
    expect(await blobsOn(c, image)).toBe(image.content.length);
    expect(c.requests().map(({ source }) => source)).toContain('node/a');
    await upstream.restart();
    await b.startAgent();
    // Two others have it now.
    await untilFreed(a, image);
    expect((await status(a)).heldImages).toBe(0);
  });

  test('are not kept where others come first that are enough', async () => {
    const image = await push('enough');
    for (const { containerd } of cluster.nodes) await containerd.pull(image.reference);
    const [first, second, third] = rendezvousOrder(image.digest, ['a', 'b', 'c'] as const).map(
      (name) => cluster.node(name),
    ) as [ClusterNode, ClusterNode, ClusterNode];
    await untilGuarded(first, image);
    await untilGuarded(second, image);
    await waitFor(async () => !(await isGuarded(third, image)), { what: 'no guard on the third' });
    await third.containerd.removeImage(image.reference);
    await untilFreed(third, image);

    // Of the two that are left, both are kept, whichever goes.
    await second.containerd.removeImage(image.reference);
    await waitFor(() => isHeld(second, image));
    await first.containerd.removeImage(image.reference);
    await waitFor(() => isHeld(first, image));
    expect(await blobsOn(first, image)).toBe(image.content.length);
    expect(await blobsOn(second, image)).toBe(image.content.length);
  });

  test('are not kept beyond the budget, nor when it becomes smaller', async () => {
    const held = await push('held');
    await holdOnA(held);
    // Less than the layer.
    await a.configureAgent({ copies: { ...copies, budgetBytes: mebibyte } });
    await untilFreed(a, held);

    const refused = await push('refused');
    await a.containerd.pull(refused.reference);
    await b.containerd.pull(refused.reference);
    await untilGuarded(b, refused);
    expect(await isGuarded(a, refused)).toBe(false);
    await a.containerd.removeImage(refused.reference);
    await untilFreed(a, refused);
    await a.configureAgent({ copies });
  });

  test('outlive the agent, containerd and garbage collection, until salvor node unkeep', async () => {
    const image = await push('lasting');
    await holdOnA(image);
    await a.agent.kill('SIGKILL');
    // It collects garbage as it starts, and again when it is asked to.
    await a.containerd.restart();
    await a.containerd.ctr(['leases', 'create', '--id', 'sweep']);
    await a.containerd.ctr(['leases', 'delete', '--sync', 'sweep']);
    expect(await blobsOn(a, image)).toBe(image.content.length);
    const before = await guards(a);

    await a.startAgent();
    await waitFor(() => isHeld(a, image));
    expect(await guards(a)).toEqual(before);

    await a.agent.stop();
    const { command, main } = sourceProgram;
    const config = ['--config', a.configPath];
    const dry = await run(command, [main, 'node', 'unkeep', '--dry-run', ...config]);
    expect(dry.stdout).toMatch(/leases of last copies .* would be removed/);
    expect(await blobsOn(a, image)).toBe(image.content.length);
    const { stdout } = await run(command, [main, 'node', 'unkeep', ...config]);
    expect(stdout).toMatch(/leases of last copies .* removed/);
    expect(await blobsOn(a, image)).toBe(0);
    expect(await guards(a)).toEqual([]);
    await a.startAgent();
  });

  test('come and go without harm to pulls under way', async () => {
    const guarded = await push('churn');
    await a.containerd.pull(guarded.reference);
    const churning = new AbortController();
    let rounds = 0;
    const churned = withLeases(a, async (leases) => {
      for (; !churning.signal.aborted; rounds += 1) {
        const id = `churn-${rounds}`;
        await leases.create(id, { flat: true });
        for (const digest of guarded.content) {
          await leases.addResource(id, { type: 'content', id: digest });
        }
        await leases.delete(id, { sync: true });
      }
    });
    const images = await Promise.all(['p', 'q', 'r', 's'].map((name) => push(name, 8 * mebibyte)));
    const warningsBefore = a.containerd.warnings().length;
    await Promise.all(images.map(({ reference }) => a.containerd.pull(reference)));
    churning.abort();
    await churned;
    for (const { content } of images) {
      for (const digest of content) await a.containerd.verifyBlob(digest);
    }
    expect(a.containerd.warnings().slice(warningsBefore)).toEqual([]);
    expect(rounds).toBeGreaterThan(3);
  });
});
