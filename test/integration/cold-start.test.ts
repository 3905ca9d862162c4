import { beforeAll, describe, expect, test } from 'vitest';
import { buildImage } from '../support/image.ts';
import { startPodCluster, stateFile, type PodCluster } from '../support/pod/pod-cluster.ts';
import type { PodNode } from '../support/pod/pod-node.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('cold-start');
const repository = 'team/app';
const names = ['a', 'b', 'c'];

let cluster: PodCluster;

beforeAll(async () => {
  cluster = await startPodCluster(scope(), {
    nodes: names,
    fill: async (baseUrl) => {
      for (const tag of names) {
        const layers = [{ randomBytes: 2_000_000, seed: tag }, { randomBytes: 300_000 }];
        const built = await buildImage({ directory: scope().directory, layers });
        await pushImage({ baseUrl, repository, tag }, built);
      }
    },
  });
});

const reference = (tag: string): string => `${cluster.upstream.host}/${repository}:${tag}`;

describe('a cold start with everything down', () => {
  test('brings nodes back from their state, and they serve each other by tag', async () => {
    // Each node alone has an image that the others never saw.
    for (const node of cluster.nodes) await node.containerd.pull(reference(node.name));
    for (const node of names) {
      await waitFor(
        async () => {
          const list = (await stateFile(scope(), { node, file: 'members.json' })) ?? '';
          return names.every((name) => name === node || list.includes(`"${name}"`));
        },
        { what: `the list of members on the disk of ${node}` },
      );
    }

    // The API server and the upstream are gone, names are looked up nowhere, and all nodes reboot.
    await cluster.api.kill('SIGKILL');
    await cluster.upstream.kill('SIGKILL');
    for (const node of cluster.nodes) await node.stopPod();
    await Promise.all(
      cluster.nodes.map(async (node) => {
        await node.containerd.restart();
        await node.startPod();
      }),
    );

    for (const [index, node] of cluster.nodes.entries()) {
      const owner = cluster.nodes[(index + 1) % names.length] as PodNode;
      const wanted = reference(owner.name);
      // Once: nodes that are not up yet, or were tried a moment ago when they were not, are waited for.
      await node.containerd.pull(wanted);
      const blobs = node.requests().filter(({ url }) => url.includes('/blobs/'));
      expect(blobs.length).toBeGreaterThan(0);
      for (const { source } of blobs) expect(source).toMatch(/^node\//);
    }
  });

  test('has agents ready, and registries hold back an update', async () => {
    for (const node of cluster.nodes) {
      expect(await node.isReady('agent'), `agent of ${node.name}`).toBe(true);
      expect(await node.isReady('registry'), `registry of ${node.name}`).toBe(false);
      const health = await node.page(7481, '/healthz');
      expect(health?.status).toBe(200);
    }
  });
});
