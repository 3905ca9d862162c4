import { describe, expect, it } from 'vitest';

import { childLabels, missingLabels } from '../../../../src/agent/keeper/child-labels.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import type { Descriptor } from '../../../../src/oci/descriptor.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';

const prefix = 'containerd.io/gc.ref.content.';
const layer = 'application/vnd.oci.image.layer.v1.tar+gzip';
const dockerLayer = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
const foreignLayer = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';

function digest(name: string): Digest {
  return digestOf(Buffer.from(name));
}

function child(name: string, mediaType: string): Descriptor {
  return { mediaType, digest: digest(name), sizeBytes: 1 };
}

function keys(labels: readonly { readonly key: string }[]): string[] {
  return labels.map(({ key }) => key.slice(prefix.length));
}

describe('childLabels', () => {
  it('numbers config and layers as containerd does', () => {
    const labels = childLabels({
      kind: 'image',
      mediaType: MEDIA_TYPE.ociManifest,
      config: child('c', MEDIA_TYPE.ociConfig),
      layers: [child('a', layer), child('b', 'application/vnd.in-toto+json'), child('d', layer)],
    });
    expect(keys(labels)).toEqual(['config', 'l.0', '0', 'l.1']);
    expect(labels.map((label) => label.digest)).toEqual(['c', 'a', 'b', 'd'].map(digest));
  });

  it("knows Docker's types, and layers from elsewhere", () => {
    const labels = childLabels({
      kind: 'image',
      mediaType: MEDIA_TYPE.dockerManifest,
      config: child('c', MEDIA_TYPE.dockerConfig),
      layers: [child('a', dockerLayer), child('b', foreignLayer), child('a', dockerLayer)],
    });
    expect(keys(labels)).toEqual(['config', 'l.0', 'l.1', 'l.2']);
  });

  it('numbers the manifests of an index, and what is none, each by itself', () => {
    const labels = childLabels({
      kind: 'index',
      mediaType: MEDIA_TYPE.ociIndex,
      manifests: [
        child('a', MEDIA_TYPE.ociManifest),
        child('b', MEDIA_TYPE.ociIndex),
        child('c', MEDIA_TYPE.dockerManifest),
      ],
    });
    expect(keys(labels)).toEqual(['m.0', '0', 'm.1']);
  });

  it('has nothing to say about a manifest without children', () => {
    const empty = { kind: 'image', mediaType: MEDIA_TYPE.ociManifest, layers: [] } as const;
    expect(childLabels(empty)).toEqual([]);
  });
});

describe('missingLabels', () => {
  const wanted = [
    { key: `${prefix}config`, digest: digest('c') },
    { key: `${prefix}l.0`, digest: digest('a') },
    { key: `${prefix}l.1`, digest: digest('b') },
  ];

  it('leaves out what is referred to, under whatever key', () => {
    const labels = { [`${prefix}config`]: digest('c'), [`${prefix}l.7`]: digest('b'), other: 'x' };
    expect(keys(missingLabels(wanted, labels))).toEqual(['l.0']);
  });

  it('does not take another label with the same digest for a reference', () => {
    expect(missingLabels(wanted, { other: digest('a') })).toEqual(wanted);
  });

  it('never changes what a key says', () => {
    expect(keys(missingLabels(wanted, { [`${prefix}l.0`]: digest('z') }))).toEqual([
      'config',
      'l.1',
    ]);
  });
});
