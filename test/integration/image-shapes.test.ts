import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import {
  buildArtifact,
  buildAttestation,
  buildImage,
  buildIndex,
  bulkyAnnotations,
  type Image,
  type ImageSpec,
} from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('image-shapes');
const otherPlatform = { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' };
const gibibyte = 1024 ** 3;

interface Shape {
  readonly name: string;
  readonly build: () => Promise<Image>;
  /** What a node of this machine's platform has to fetch; all blobs of the image unless told. */
  readonly needs?: (image: Image) => readonly Image[];
}

function image(spec: Omit<ImageSpec, 'directory'>): Promise<Image> {
  return buildImage({ directory: scope().directory, ...spec });
}

const shapes: readonly Shape[] = [
  { name: 'oci', build: () => image({ layers: [{ randomBytes: 200_000, seed: 'oci' }] }) },
  {
    name: 'docker-schema-2',
    build: () => image({ format: 'docker', layers: [{ randomBytes: 200_000, seed: 'docker' }] }),
  },
  {
    name: 'docker-manifest-list',
    build: async () =>
      buildIndex(
        [
          await image({ format: 'docker', layers: [{ randomBytes: 90_000, seed: 'list' }] }),
          await image({
            format: 'docker',
            platform: otherPlatform,
            layers: [{ randomBytes: 90_000, seed: 'list-other' }],
          }),
        ],
        { format: 'docker' },
      ),
    needs: ({ children }) => children.slice(0, 1),
  },
  {
    name: 'index-of-two-platforms',
    build: async () =>
      buildIndex([
        await image({
          platform: otherPlatform,
          layers: [{ randomBytes: 90_000, seed: 'index-other' }],
        }),
        await image({ layers: [{ randomBytes: 90_000, seed: 'index' }] }),
      ]),
    needs: ({ children }) => children.slice(1),
  },
  {
    name: 'index-with-attestation',
    build: async () => {
      const subject = await image({ layers: [{ randomBytes: 90_000, seed: 'attested' }] });
      return buildIndex([subject, buildAttestation(subject)]);
    },
    needs: ({ children }) => children.slice(0, 1),
  },
  {
    name: 'zstd',
    build: () => image({ compression: 'zstd', layers: [{ randomBytes: 200_000, seed: 'zstd' }] }),
  },
  {
    name: 'manifest-of-a-megabyte',
    build: () =>
      image({
        layers: [{ randomBytes: 90_000, seed: 'megabyte' }],
        annotations: bulkyAnnotations(1_000_000),
      }),
  },
  {
    name: 'forty-layers',
    build: () =>
      image({
        layers: Array.from({ length: 40 }, (_, index) => ({
          randomBytes: 20_000,
          seed: `forty-${index}`,
          files: { [`layer-${index}`]: String(index) },
        })),
      }),
  },
  {
    name: 'layer-of-a-gibibyte',
    build: () => image({ compression: 'none', layers: [{ randomBytes: gibibyte, seed: 'gib' }] }),
  },
];

let upstream: DockerRegistry;
let cluster: Cluster;
const built = new Map<string, Image>();
const artifact = buildArtifact();

function reference(name: string): string {
  return `${upstream.host}/shapes/${name}:v1`;
}

function node(name: string): ClusterNode {
  return cluster.node(name);
}

describe('an image that only another node has', () => {
  beforeAll(async () => {
    upstream = await startDockerRegistry(scope());
    cluster = await startCluster(scope(), {
      nodes: ['first', 'second'],
      upstreams: { [upstream.host]: { url: upstream.url } },
    });
    for (const { name, build } of shapes) {
      const shape = await build();
      built.set(name, shape);
      await pushImage({ baseUrl: upstream.url, repository: `shapes/${name}`, tag: 'v1' }, shape);
      await node('first').containerd.pull(reference(name));
    }
    const where = { baseUrl: upstream.url, repository: 'shapes/artifact', tag: 'v1' };
    await pushImage(where, artifact);
    await fetchContent(node('first'), reference('artifact'));
    await upstream.kill('SIGKILL');
  }, 240_000);

  test.each(shapes)('is pulled and unpacked: $name', async ({ name, needs }) => {
    const shape = built.get(name)!;
    const { containerd } = node('second');

    await containerd.pull(reference(name));

    for (const part of [shape, ...(needs?.(shape) ?? [])]) {
      await containerd.verifyBlob(part.digest);
      for (const { digest } of part.blobs) await containerd.verifyBlob(digest);
    }
    expect(await containerd.isUnpacked(reference(name))).toBe(true);
    const requests = node('second')
      .requests()
      .filter(({ url }) => url.includes(`/shapes/${name}/`));
    expect(requests.every(({ status, end }) => status === 200 && end === 'complete')).toBe(true);
    expect(requests.some(({ source }) => source === 'node/first')).toBe(true);
  });

  test('is fetched: an artifact without layers', async () => {
    await fetchContent(node('second'), reference('artifact'));

    await node('second').containerd.verifyBlob(artifact.digest);
    for (const { digest } of artifact.blobs) await node('second').containerd.verifyBlob(digest);
  });
});

/** Content without unpacking, which is all that an artifact is good for. */
async function fetchContent(target: ClusterNode, ref: string): Promise<void> {
  const { containerd } = target;
  await containerd.ctr(['content', 'fetch', '--hosts-dir', containerd.certsDirectory, ref]);
}
