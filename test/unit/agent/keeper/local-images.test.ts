import { describe, expect, test } from 'vitest';
import {
  localImages,
  repositoriesOf,
  type ImageName,
  type ImageStore,
  type LocalImage,
} from '../../../../src/agent/keeper/local-images.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import type { Descriptor } from '../../../../src/oci/descriptor.ts';
import type { Manifest } from '../../../../src/oci/manifest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';

const platform = { os: 'linux', architecture: 'amd64' };
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';

function descriptor(name: string, mediaType: string, more: Partial<Descriptor> = {}): Descriptor {
  return { digest: digestOf(Buffer.from(name)), mediaType, sizeBytes: 10, ...more };
}

const config = descriptor('config', MEDIA_TYPE.ociConfig);
const layers = ['one', 'two', 'one'].map((name) => descriptor(name, layerType));
const foreign = descriptor('foreign', 'application/vnd.oci.image.layer.nondistributable.v1.tar');
const manifest = descriptor('manifest', MEDIA_TYPE.ociManifest, { platform });
const other = descriptor('other', MEDIA_TYPE.ociManifest, {
  platform: { os: 'linux', architecture: 's390x' },
});
const index = descriptor('index', MEDIA_TYPE.ociIndex);
const documents = new Map<Digest, Manifest>([
  [index.digest, { kind: 'index', mediaType: index.mediaType, manifests: [other, manifest] }],
  [
    manifest.digest,
    { kind: 'image', mediaType: manifest.mediaType, config, layers: [...layers, foreign] },
  ],
]);

function record(name: string, target: Descriptor = index): ImageName {
  const { digest, mediaType, sizeBytes } = target;
  return { name, digest, mediaType, sizeBytes };
}

async function walk(parts: {
  readonly records: readonly ImageName[];
  readonly missing?: readonly Descriptor[];
  readonly labels?: Readonly<Record<Digest, Record<string, string>>>;
  readonly inUse?: readonly string[];
}): Promise<LocalImage[]> {
  const missing = new Set(parts.missing?.map(({ digest }) => digest));
  const store: ImageStore = {
    images: async () => parts.records,
    namesInUse: async () => new Set(parts.inUse),
    labels: async (digest) => parts.labels?.[digest] ?? {},
    manifest: async (digest) => (missing.has(digest) ? undefined : documents.get(digest)),
    stat: async (digest) =>
      missing.has(digest) ? undefined : { digest, sizeBytes: 10, fingerprint: '' },
  };
  const { signal } = new AbortController();
  const found: LocalImage[] = [];
  for await (const image of localImages({ platform }, { store, signal })) found.push(image);
  return found;
}

describe('localImages', () => {
  test('tells what this platform needs of an image, once for all its names', async () => {
    const names = ['registry.test/app:1', `registry.test/app@${index.digest}`, config.digest];
    const images = await walk({
      records: names.map((name) => record(name)),
      missing: [layers[0]!],
      inUse: [config.digest],
    });
    expect(images).toMatchObject([
      {
        digest: index.digest,
        name: 'registry.test/app:1',
        repositories: [{ registry: 'registry.test', repository: 'app' }],
        isInUse: true,
        manifestDigest: manifest.digest,
        isDiscarded: true,
      },
    ]);
    expect(images[0]?.parts.map(({ digest, kind, isHeld }) => [digest, kind, isHeld])).toEqual([
      [index.digest, 'index', true],
      [manifest.digest, 'manifest', true],
      [config.digest, 'config', true],
      [layers[0]!.digest, 'layer', false],
      [layers[1]!.digest, 'layer', true],
    ]);
  });

  test('stops where content is missing, and goes on with the next image', async () => {
    const images = await walk({
      records: [record('registry.test/a:1'), record('registry.test/b:1', manifest)],
      missing: [index],
    });
    expect(images.map(({ name, parts }) => [name, parts.length])).toEqual([
      ['registry.test/a:1', 1],
      ['registry.test/b:1', 4],
    ]);
    expect(images[0]).not.toHaveProperty('manifestDigest');
  });

  test.each([
    [{}, true],
    [{ 'containerd.io/gc.ref.content.config': config.digest }, true],
    [{ 'containerd.io/gc.ref.content.l.0': layers[0]!.digest }, false],
    [{ 'containerd.io/gc.ref.content.l.0': 'x', 'salvor.dev/kept': 'l.0' }, true],
  ] as const)('sees by the labels %o that layers are discarded: %s', async (labels, expected) => {
    const records = [record('registry.test/a:1')];
    const images = await walk({ records, labels: { [manifest.digest]: labels } });
    expect(images[0]?.isDiscarded).toBe(expected);
  });

  test.each([
    ['stargz', 'stargz'],
    ['overlayfs', undefined],
  ])('sees that %s has prepared the image', async (snapshotter, expected) => {
    const labels = { [config.digest]: { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: 'x' } };
    const images = await walk({ records: [record('registry.test/a:1')], labels });
    expect(images[0]?.lazySnapshotter).toBe(expected);
  });
});

describe('repositoriesOf', () => {
  test('names each repository once and passes over what is none', () => {
    const names = ['docker.io/library/nginx:1', 'docker.io/library/nginx:2', config.digest, '::'];
    expect(repositoriesOf(names)).toEqual([{ registry: 'docker.io', repository: 'library/nginx' }]);
  });
});
