import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('agents-return');
const repository = 'team/app';
const tags = ['by-tag', 'by-digest', 'known-outage'];
/** Until an answer in an outage, milliseconds: machines that tests run on are slow at times. */
const outageAnswerMs = 10_000;

let upstream: DockerRegistry;
let cluster: Cluster;
const images = new Map<string, PushedImage>();

beforeAll(async () => {
  upstream = await startDockerRegistry(scope(), { name: 'upstream' });
  for (const tag of tags) {
    const layers = [
      { randomBytes: 1_000_000, seed: tag },
      { randomBytes: 100_000, seed: `b${tag}` },
    ];
    const built = await buildImage({ directory: scope().directory, layers });
    images.set(tag, await pushImage({ baseUrl: upstream.url, repository, tag }, built));
  }
  cluster = await startCluster(scope(), {
    nodes: ['puller', 'owner', 'other'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    registry: { budgets: { outageAnswerMs } },
  });
});

const cases = [
  { tag: 'by-tag', what: 'tag, in an outage that nobody has noticed yet' },
  { tag: 'by-digest', what: 'digest' },
  { tag: 'known-outage', what: 'tag' },
];

describe('agents that come back while a pull waits for them', () => {
  beforeAll(async () => {
    const owner = cluster.node('owner');
    for (const tag of tags) await owner.containerd.pull(`${upstream.host}/${repository}:${tag}`);
    await upstream.kill('SIGKILL');
    // This one is dead for good: nobody may have to wait for it.
    await cluster.node('other').agent.kill('SIGKILL');
  });

  test.each(cases)('give it an image by $what, without a second try', async ({ tag }) => {
    const [puller, owner] = [cluster.node('puller'), cluster.node('owner')];
    const image = images.get(tag)!;
    const name = `${upstream.host}/${repository}`;
    const reference = tag === 'by-digest' ? `${name}@${image.digest}` : `${name}:${tag}`;
    await Promise.all([puller, owner].map((node) => node.agent.kill('SIGKILL')));
    const before = puller.requests().length;

    const pulled = puller.containerd.pull(reference);
    await Promise.all([puller, owner].map((node) => node.startAgent()));
    await pulled;

    for (const { digest } of image.blobs) await puller.containerd.verifyBlob(digest);
    const requests = puller.requests().slice(before);
    expect(requests.map(({ status }) => status)).toEqual(requests.map(() => 200));
    // It was there before they were.
    expect(requests[0]!.tried).toContainEqual(
      expect.objectContaining({ source: 'silent nodes', outcome: 'found' }),
    );
  });
});
