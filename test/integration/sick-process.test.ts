import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildImage } from '../support/image.ts';
import type { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { spin } from '../support/spin.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('sick-process');
const layerBytes = 6_000_000;
const bytesPerSecond = 6_000_000;
const watchdogMs = 3000;

let upstream: DockerRegistry;
let proxy: FaultProxy;
let cluster: Cluster;
let healthySeconds: number;

/** A pull of an image that no node has, with something happening in the middle of its layer. */
async function pull(name: string, inTheMiddle: () => Promise<void>): Promise<number> {
  const repository = `sick/${name}`;
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: layerBytes, seed: name }],
  });
  const image = await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, built);
  const layer = image.blobs.toSorted((a, b) => b.size - a.size)[0]!;
  let happened = false;
  proxy.killUpstreamAfterBytes(
    layerBytes / 3,
    async () => {
      happened = true;
      await inTheMiddle();
    },
    { match: ({ path }) => path.includes(layer.digest), after: 'pass' },
  );
  const { containerd } = cluster.nodes[0]!;
  const startedMs = performance.now();
  await containerd.pull(`${proxy.host}/${repository}:v1`);
  const seconds = (performance.now() - startedMs) / 1000;
  expect(happened).toBe(true);
  await containerd.verifyBlob(layer.digest);
  expect(await containerd.isUnpacked(`${proxy.host}/${repository}:v1`)).toBe(true);
  return seconds;
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  cluster = await startCluster(scope(), {
    nodes: ['a'],
    upstreams: { [proxy.host]: { url: proxy.url } },
    watchdogMs,
  });
  await proxy.setMode({ kind: 'throttle', bytesPerSecond });
  healthySeconds = await pull('healthy', async () => undefined);
});

const sicknesses = {
  'is killed': (program: Program) => program.kill('SIGKILL'),
  'is stopped': (program: Program) => program.kill('SIGSTOP'),
  spins: spin,
};

describe.each(['registry', 'agent'] as const)('a healthy pull while the %s', (role) => {
  test.each(Object.entries(sicknesses))('%s succeeds', async (what, fallIll) => {
    const node: ClusterNode = cluster.nodes[0]!;
    const program = node[role];
    const name = `${role}-${what.replaceAll(' ', '-')}`;

    const seconds = await pull(name, () => fallIll(program));

    const added = (seconds - healthySeconds).toFixed(1);
    console.log(`${role} ${what}: ${added} s more than ${healthySeconds.toFixed(1)} s`);
    if (role === 'registry') {
      // Silence would hold every later pull: the process must be gone, whatever its sickness.
      expect(await program.exited).toMatchObject({ signal: 'SIGKILL' });
      await node.startRegistry();
    } else {
      await program.kill('SIGKILL');
      await node.startAgent();
    }
  });
});
