import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { get } from '../support/oci-client.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

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

async function leases(node: ClusterNode): Promise<string> {
  return node.containerd.ctr(['leases', 'list']);
}

async function isGuarded(node: ClusterNode, image: TestImage): Promise<boolean> {
  return (await leases(node)).includes(`salvor.dev/last-copy=${image.digest}`);
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

describe('the last copies of an image', () => {
  test('are kept where the runtime removes one, and served to others in an outage', async () => {
    const image = await push('few');
    await a.containerd.pull(image.reference);
    await b.containerd.pull(image.reference);
    await untilGuarded(a, image);

    await a.containerd.removeImage(image.reference);
    await waitFor(() => isHeld(a, image));
    expect(await a.containerd.imageStatus(image.reference)).toBeUndefined();
    expect(await blobsOn(a, image)).toBe(image.content.length);

    await b.agent.kill('SIGKILL');
    await upstream.kill('SIGKILL');
    await c.containerd.pull(image.reference);
    expect(await blobsOn(c, image)).toBe(image.content.length);
    const sources = c.requests().map(({ source }) => source);
    expect(sources).toContain('node/a');
    await upstream.restart();
    await b.startAgent();
    // Two others have it now.
    await untilFreed(a, image);
    expect((await status(a)).heldImages).toBe(0);
  });
});
