import { beforeAll, describe, expect, test } from 'vitest';
import { buildImage } from '../support/image.ts';
import { startPodCluster, type PodCluster } from '../support/pod/pod-cluster.ts';
import type { PodNode } from '../support/pod/pod-node.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('pod-rolling-restart');
const repository = 'team/app';
const tags = ['v1', 'v2'];

let cluster: PodCluster;

beforeAll(async () => {
  cluster = await startPodCluster(scope(), {
    nodes: ['a', 'b', 'c'],
    fill: async (baseUrl) => {
      for (const tag of tags) {
        const layers = [300_000, 8_000_000, 20_000_000].map((randomBytes, index) => ({
          randomBytes,
          seed: `${tag} ${index}`,
        }));
        const built = await buildImage({ directory: scope().directory, layers });
        await pushImage({ baseUrl, repository, tag }, built);
      }
    },
  });
});

const reference = (tag: string): string => `${cluster.upstream.host}/${repository}:${tag}`;

interface Pulls {
  readonly failures: unknown[];
  count: number;
  /** Waits for the pull that is under way, and makes no other. */
  end: () => Promise<void>;
}

/** Pulls on a node, one after the other, each into a store that has nothing of the image. */
function keepPulling(node: PodNode): Pulls {
  const ending = new AbortController();
  const pulls: Pulls = { failures: [], count: 0, end: () => Promise.resolve() };
  const work = (async () => {
    for (let turn = 0; !ending.signal.aborted; turn += 1) {
      const wanted = reference(tags[turn % tags.length]!);
      await node.containerd.removeImage(wanted);
      await node.containerd.pull(wanted).then(
        () => {
          pulls.count += 1;
        },
        (error: unknown) => pulls.failures.push(error),
      );
    }
  })();
  pulls.end = async () => {
    ending.abort();
    await work;
  };
  return pulls;
}

async function restartPod(node: PodNode): Promise<void> {
  await node.stopPod();
  await node.startPod();
}

/** How many requests the registry of a node is answering. */
async function streamsOf(node: PodNode): Promise<number> {
  const { body = '' } = (await node.page(7481, '/metrics')) ?? {};
  return Number(/^salvor_registry_streams (\d+)$/m.exec(body)?.[1]);
}

/** How many blobs the registry of a node has given in full. */
function blobsGiven(node: PodNode): number {
  return node.requests().filter(({ url }) => url.includes('/blobs/')).length;
}

describe('a rolling restart in an outage', () => {
  test('fails no pull of the nodes that are not being restarted', async () => {
    for (const node of cluster.nodes) {
      for (const tag of tags) await node.containerd.pull(reference(tag));
    }
    await cluster.upstream.kill('SIGKILL');
    for (const [index, node] of cluster.nodes.entries()) {
      const puller = cluster.nodes[(index + 1) % cluster.nodes.length]!;
      const pulls = keepPulling(puller);
      await waitFor(() => pulls.count + pulls.failures.length > 0, { timeoutMs: 60_000 });
      const before = pulls.count;
      await restartPod(node);
      await waitFor(() => pulls.count + pulls.failures.length > before, { timeoutMs: 60_000 });
      await pulls.end();
      expect(pulls.failures).toEqual([]);
      expect(node.program('registry').hasExited).toBe(false);
    }
  });

  test('ends the downloads that run on the restarted node itself', async () => {
    const [node] = cluster.nodes as [PodNode];
    const wanted = reference(tags[1]!);
    await node.containerd.removeImage(wanted);
    await cluster.network.limitRate(node.host, '60mbit');
    const blobsBefore = blobsGiven(node);
    const pull = node.containerd.pull(wanted);
    // Beside the configuration and the small layer: the two large ones take more than three seconds.
    const isUnderWay = async (): Promise<boolean> =>
      blobsGiven(node) === blobsBefore + 2 && (await streamsOf(node)) === 2;
    await waitFor(isUnderWay, {
      what: 'downloads under way',
      timeoutMs: 20_000,
    });
    await restartPod(node);
    await pull;
    expect(await node.containerd.isUnpacked(wanted)).toBe(true);
    await cluster.network.limitRate(node.host, '10gbit');
  });

  test('lets the restarted node serve and pull, though no upstream is there', async () => {
    for (const node of cluster.nodes) {
      const wanted = reference(tags[0]!);
      await node.containerd.removeImage(wanted);
      await node.containerd.pull(wanted);
      expect(await node.containerd.isUnpacked(wanted)).toBe(true);
    }
  });
});
