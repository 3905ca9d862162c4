import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildImage } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('dies-mid-blob');
const repository = 'team/app';
const layerBytes = 40_000_000;

let upstream: DockerRegistry;
let proxy: FaultProxy;
let cluster: Cluster;
let image: PushedImage;

/** The only layer: its digest and the size that travels. */
function layer(): { digest: string; size: number } {
  const largest = image.blobs.toSorted((a, b) => b.size - a.size)[0];
  if (largest === undefined) throw new Error('Cannot find the layer');
  return largest;
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: layerBytes }],
  });
  image = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, built);
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b', 'c', 'd'],
    upstreams: { [proxy.host]: { url: proxy.url } },
  });
  await cluster.node('a').containerd.pull(`${proxy.host}/${repository}:v1`);
});

describe('a pull whose upstream is killed', () => {
  test.each([
    { node: 'b', at: 'at 1 %', share: 0.01 },
    { node: 'c', at: 'at 50 %', share: 0.5 },
    { node: 'd', at: 'before the last byte', share: 1 },
  ])('$at of a layer completes from another node', async ({ node: name, share }) => {
    if (upstream.program.hasExited) await upstream.restart();
    const node = cluster.node(name);
    const { digest, size } = layer();
    const afterBytes = Math.min(size - 1, Math.floor(size * share));
    let died = false;
    proxy.killUpstreamAfterBytes(
      afterBytes,
      async () => {
        died = true;
        await upstream.kill('SIGKILL');
      },
      { match: ({ path }) => path.includes(digest) },
    );

    await node.containerd.pull(`${proxy.host}/${repository}:v1`);

    expect(died).toBe(true);
    await node.containerd.verifyBlob(digest);
    expect(await node.containerd.isUnpacked(`${proxy.host}/${repository}:v1`)).toBe(true);
    expect(node.containerd.warnings()).toEqual([]);
    const requests = node.requests().filter(({ url }) => url.includes(digest));
    expect(requests, 'one answer out of two sources').toMatchObject([
      { status: 200, end: 'complete', bytes: size },
    ]);
    expect(requests[0]?.source).toMatch(/^upstream,node\//);
  });
});
