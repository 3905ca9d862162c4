import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Diagnosis } from '../../src/node/doctor/diagnosis.ts';
import { buildImage } from '../support/image.ts';
import { startPodCluster, type PodCluster } from '../support/pod/pod-cluster.ts';
import type { PodNode } from '../support/pod/pod-node.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('pod-outage');
const repository = 'team/app';
const none = '0000000000000000';

let cluster: PodCluster;
let images: PushedImage[];

beforeAll(async () => {
  cluster = await startPodCluster(scope(), {
    nodes: ['a', 'b', 'c'],
    fill: async (baseUrl) => {
      images = [];
      for (const tag of ['v1', 'v2', 'v3']) {
        const layers = [300_000, 3_000_000, 12_000_000].map((randomBytes, index) => ({
          randomBytes,
          seed: `${tag} ${index}`,
        }));
        const built = await buildImage({ directory: scope().directory, layers });
        images.push(await pushImage({ baseUrl, repository, tag }, built));
      }
    },
  });
});

/** One PullImage, seen from all sides. */
async function expectCleanPull(
  node: PodNode,
  { image, reference }: { image: PushedImage; reference: string },
): Promise<void> {
  const warningsBefore = node.containerd.warnings().length;
  const requestsBefore = node.requests().length;
  await node.containerd.pull(reference);
  for (const { digest } of image.blobs) await node.containerd.verifyBlob(digest);
  expect(await node.containerd.isUnpacked(reference)).toBe(true);
  expect(node.containerd.warnings().slice(warningsBefore)).toEqual([]);
  const requests = node.requests().slice(requestsBefore);
  expect(requests.every(({ end }) => end === 'complete')).toBe(true);
  const blobs = requests.filter(({ url }) => url.includes('/blobs/'));
  expect(blobs.map(({ status }) => status)).toEqual(image.blobs.map(() => 200));
}

const outages: Readonly<Record<string, { begin: () => Promise<void>; end: () => Promise<void> }>> =
  {
    'is gone': {
      begin: () => cluster.upstream.kill('SIGKILL'),
      end: () => cluster.upstream.restart(),
    },
    'accepts and says nothing': {
      begin: () => cluster.upstream.kill('SIGSTOP'),
      end: () => cluster.upstream.kill('SIGCONT'),
    },
    'is cut off, so that packets are lost without a word': {
      begin: () => cluster.network.setCable(cluster.upstreamHost, 'out'),
      end: () => cluster.network.setCable(cluster.upstreamHost, 'in'),
    },
  };

/** Until the registries of all nodes know that the upstream is back. */
async function outagesEnd(): Promise<void> {
  for (const node of cluster.nodes) {
    await waitFor(
      async () => !((await node.page(7481, '/status'))?.body ?? '"outage"').includes('"outage"'),
      { what: `the end of the outage on ${node.name}`, timeoutMs: 60_000 },
    );
  }
}

describe('the pod of the chart', () => {
  test('lets people ask the doctor and for a report, with no flag', async () => {
    const node = cluster.nodes[0]!;
    const { code, error, out } = await node.exec('agent', ['doctor', '--json']);
    const { findings, unchecked } = JSON.parse(out) as Diagnosis;
    // The files and the process of containerd are out of sight, and are not called good.
    expect(unchecked.map(({ check }) => check).toSorted(), error).toEqual([
      'config',
      'hosts',
      'proxy',
    ]);
    // No image was pulled for this pod: its root is a directory of this machine.
    const grave = findings.filter(({ severity }) => severity !== 'info').map(({ id }) => id);
    expect([grave, code], out).toEqual([['own-image-missing'], 3]);
    const upstreams = await node.exec('registry', ['doctor', '--only', 'upstreams']);
    expect([upstreams.code, upstreams.out]).toEqual([0, 'nothing found\n']);
    const report = await node.exec('agent', ['report']);
    expect(report.out, report.error).toContain('3 of 3 nodes answered');
  });

  test('has the users and the rights that the chart says, and no others', async () => {
    for (const node of cluster.nodes) {
      const registry = await node.processStatus('registry');
      expect(registry['Uid']).toBe('65532\t65532\t65532\t65532');
      const agent = await node.processStatus('agent');
      expect(agent['Uid']).toBe('0\t0\t0\t0');
      for (const status of [registry, agent]) {
        expect(status).toMatchObject({ NoNewPrivs: '1', CapBnd: none, CapEff: none, CapPrm: none });
      }
    }
  });

  test('is ready, agent and registry', async () => {
    for (const node of cluster.nodes) {
      await waitFor(() => node.isReady('agent'), { what: `the agent of ${node.name} ready` });
    }
  });
});

describe.each(Object.keys(outages).map((what, index) => ({ what, index })))(
  'a registry that $what',
  ({ what, index }) => {
    afterAll(async () => {
      await outages[what]!.end();
      await outagesEnd();
    });

    test('does not stop nodes that never had the image, by tag or by digest', async () => {
      const [a, b, c] = cluster.nodes as [PodNode, PodNode, PodNode];
      const image = images[index]!;
      const name = `${cluster.upstream.host}/${repository}`;
      await expectCleanPull(a, { image, reference: `${name}:${image.tag}` });
      await outages[what]!.begin();
      await expectCleanPull(b, { image, reference: `${name}:${image.tag}` });
      await expectCleanPull(c, { image, reference: `${name}@${image.digest}` });
      for (const node of [b, c]) {
        const sources = node
          .requests()
          .filter(({ url, method }) => method === 'GET' && url.includes('/blobs/'))
          .slice(-image.blobs.length)
          .map(({ source }) => source);
        for (const source of sources) expect(source).toMatch(/^node\//);
      }
    });
  },
);
