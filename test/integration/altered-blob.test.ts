import { open } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('altered-blob');

let upstream: DockerRegistry;

interface Scene {
  readonly cluster: Cluster;
  readonly image: PushedImage;
  readonly reference: string;
  readonly layer: { readonly digest: string; readonly size: number };
}

/** Two nodes hold an image, the registry is dead, a third node wants it. */
async function stage(prefix: string, agent: object): Promise<Scene> {
  const repository = `team/${prefix}`;
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 9_000_000, seed: prefix }],
  });
  const image = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, built);
  const cluster = await startCluster(scope(), {
    nodes: [`${prefix}-a`, `${prefix}-b`, `${prefix}-c`],
    upstreams: { [upstream.host]: { url: upstream.url } },
    // What is wrong has to stay wrong.
    agent: { repair: { mode: 'off' }, ...agent },
  });
  const layer = image.blobs.toSorted((a, b) => b.size - a.size)[0]!;
  return { cluster, image, layer, reference: `${upstream.host}/${repository}:v1` };
}

/** Flips one byte in the middle of a blob, leaving its size alone. */
async function alter(node: ClusterNode, digest: string): Promise<void> {
  const file = await open(node.containerd.blobPath(digest), 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 5_000_000);
  byte[0] = (byte[0] ?? 0) ^ 0xff;
  await file.write(byte, 0, 1, 5_000_000);
  await file.close();
}

function layerRequests(scene: Scene, node: ClusterNode): ReturnType<ClusterNode['requests']> {
  return node.requests().filter(({ url }) => url.includes(scene.layer.digest));
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
});

describe('a blob that was altered on disk', () => {
  test('and was noticed is taken from elsewhere in the same pull', async () => {
    const scene = await stage('seen', { integrity: { sweepIntervalMs: 1000 } });
    const [a, b, c] = scene.cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    await a.containerd.pull(scene.reference);
    await b.containerd.pull(scene.reference);
    await alter(a, scene.layer.digest);
    await waitFor(async () => {
      const metrics = await fetch(`http://127.0.0.1:${a.agentAdminPort}/metrics`);
      return /^salvor_agent_corrupt_blobs_total 1$/m.test(await metrics.text());
    });
    await upstream.kill('SIGKILL');

    await c.containerd.pull(scene.reference);

    await c.containerd.verifyBlob(scene.layer.digest);
    expect(layerRequests(scene, c)).toMatchObject([
      { status: 200, end: 'complete', source: `node/${b.name}` },
    ]);
    await upstream.restart();
  });

  test('and was not noticed fails one pull, leaves nothing behind, and the next one succeeds', async () => {
    // Never swept, and so slowly hashed on demand that the pull comes first.
    const scene = await stage('unseen', {
      integrity: { sweepIntervalMs: 86_400_000, bytesPerSecond: 65_536 },
    });
    const [a, b, c] = scene.cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    await a.containerd.pull(scene.reference);
    await alter(a, scene.layer.digest);
    await upstream.kill('SIGKILL');

    // Only the altered copy exists: it must never be taken for good.
    await expect(c.containerd.pull(scene.reference)).rejects.toThrow();
    expect(await c.containerd.blobs()).not.toContain(scene.layer.digest);
    await waitFor(async () => {
      const ingests = await c.containerd.ingests();
      return ingests.every(({ ref }) => !ref.includes(scene.layer.digest));
    });
    expect(layerRequests(scene, c).at(0)).toMatchObject({
      source: `node/${a.name}`,
      end: 'wrong_bytes',
    });

    // An honest copy appears; the node that lied is not asked again.
    await upstream.restart();
    await b.containerd.pull(scene.reference);
    await upstream.kill('SIGKILL');
    await c.containerd.pull(scene.reference);
    await c.containerd.verifyBlob(scene.layer.digest);
    expect(layerRequests(scene, c).at(-1)).toMatchObject({
      source: `node/${b.name}`,
      end: 'complete',
    });
    await upstream.restart();
  });
});
