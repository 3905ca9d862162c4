import { sha256 } from '../../support/layer.ts';
import {
  buildImage,
  buildIndex,
  hostPlatform,
  type Image,
  type ImageSpec,
} from '../../support/image.ts';
import type { TruthScene } from './truth-scene.ts';

const otherPlatform = { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' };
const layerBytes = 3000;

/** One image and the state that it is brought into. */
export interface TruthCase {
  readonly name: string;
  /** Whether a node that has nothing can pull it once the upstream is dead. */
  readonly isServable: boolean;
  /** What the report says is in the way; of one that is servable, nothing. */
  readonly because?: string;
  readonly build: (scene: TruthScene) => Promise<Image>;
  /** Brings it onto nodes, with the upstream alive. */
  readonly bring: (scene: TruthScene, image: Image) => Promise<void>;
  /** Lets go of what garbage collection will take, after everything else. */
  readonly letGo?: (scene: TruthScene, image: Image) => Promise<void>;
  /** Where garbage is collected between report and pull, and what goes then. */
  readonly collected?: (image: Image) => string;
  /** The registry that its name begins with, if not the upstream. */
  readonly isSilentHost?: boolean;
}

/** The digest of the layer at a place, counted from the bottom. */
function layerOf(image: Image, index: number): string {
  return partOf(image, index + 1);
}

function configOf(image: Image): string {
  return partOf(image, 0);
}

function partOf(image: Image, index: number): string {
  const blob = image.blobs[index];
  if (blob === undefined) throw new Error(`Cannot find blob ${index} of ${image.digest}`);
  return blob.digest;
}

function built(seed: string, spec: Partial<ImageSpec> = {}): (scene: TruthScene) => Promise<Image> {
  return ({ scope }) =>
    buildImage({
      directory: scope.directory,
      layers: [{ randomBytes: layerBytes, seed }],
      ...spec,
    });
}

const base = { randomBytes: layerBytes, seed: 'base' };

/** Says that its layer has more bytes than it has. */
async function withWrongSize(scene: TruthScene): Promise<Image> {
  const image = await built('size-wrong')(scene);
  const manifest = JSON.parse(image.manifest.toString()) as { layers: { size: number }[] };
  const layers = manifest.layers.map((layer) => ({ ...layer, size: layer.size + 7 }));
  const bytes = Buffer.from(JSON.stringify({ ...manifest, layers }));
  return { ...image, manifest: bytes, digest: sha256(bytes), size: bytes.length };
}

/** Pushes an image and pulls it on nodes, through Salvor where they do. */
function onNodes(
  ...nodes: Parameters<TruthScene['pull']> extends [string, ...infer N] ? N : never
): (name: string) => TruthCase['bring'] {
  return (name) => async (scene, image) => {
    await scene.push(name, image);
    await scene.pull(name, ...nodes);
  };
}

/** Twenty images, each in a state of its own. */
export const truthCases: readonly TruthCase[] = [
  {
    name: 'on-two-nodes',
    isServable: true,
    build: built('on-two-nodes'),
    bring: onNodes('one', 'two')('on-two-nodes'),
  },
  {
    name: 'docker-schema-2',
    isServable: true,
    build: built('docker-schema-2', { format: 'docker' }),
    bring: onNodes('two')('docker-schema-2'),
  },
  {
    name: 'layer-lost',
    isServable: false,
    because: 'layer-missing',
    build: built('layer-lost'),
    bring: async (scene, image) => {
      await onNodes('one')('layer-lost')(scene, image);
      await scene.lose(layerOf(image, 0), 'one');
    },
  },
  {
    name: 'layers-discarded',
    isServable: false,
    because: 'layer-missing',
    build: built('layers-discarded'),
    bring: onNodes('discards')('layers-discarded'),
  },
  {
    name: 'whole-over-two-nodes',
    isServable: true,
    build: built('', {
      layers: ['left', 'right'].map((seed) => ({ randomBytes: layerBytes, seed })),
    }),
    bring: async (scene, image) => {
      await onNodes('one', 'two')('whole-over-two-nodes')(scene, image);
      await scene.lose(layerOf(image, 0), 'one');
      await scene.lose(layerOf(image, 1), 'two');
    },
  },
  {
    name: 'corrupt-everywhere',
    isServable: false,
    because: 'corrupt',
    build: built('corrupt-everywhere'),
    bring: async (scene, image) => {
      await onNodes('one')('corrupt-everywhere')(scene, image);
      await scene.corrupt(layerOf(image, 0), 'one');
    },
  },
  {
    name: 'corrupt-at-one-of-two',
    isServable: true,
    build: built('corrupt-at-one-of-two'),
    bring: async (scene, image) => {
      await onNodes('one', 'two')('corrupt-at-one-of-two')(scene, image);
      await scene.corrupt(layerOf(image, 0), 'one');
    },
  },
  {
    name: 'config-lost',
    isServable: false,
    because: 'config-missing',
    build: built('config-lost'),
    bring: async (scene, image) => {
      await onNodes('one')('config-lost')(scene, image);
      await scene.lose(configOf(image), 'one');
    },
  },
  {
    name: 'index-only',
    isServable: false,
    because: 'manifest-missing',
    build: async (scene) => buildIndex([await built('index-only')(scene)]),
    bring: async (scene, image) => {
      await onNodes('one')('index-only')(scene, image);
      await scene.lose(childOf(image).digest, 'one');
    },
  },
  {
    name: 'on-a-base-elsewhere',
    isServable: true,
    build: built('', { layers: [base, { randomBytes: layerBytes, seed: 'top' }] }),
    bring: async (scene, image) => {
      await onNodes('one')('on-a-base-elsewhere')(scene, image);
      await scene.lose(layerOf(image, 0), 'one');
    },
  },
  {
    name: 'base',
    isServable: true,
    build: built('', { layers: [base] }),
    bring: onNodes('two')('base'),
  },
  {
    name: 'for-another-platform',
    isServable: false,
    build: async (scene) =>
      buildIndex([
        await built('here')(scene),
        await built('there', { platform: otherPlatform })(scene),
      ]),
    bring: async (scene, image) => {
      await scene.push('for-another-platform', image);
      const platform = `${otherPlatform.os}/${otherPlatform.architecture}`;
      await scene.pullDirectly('for-another-platform', 'one', platform);
    },
  },
  {
    name: 'imported',
    isServable: true,
    build: built('imported'),
    bring: async (scene, image) => scene.importImage('imported', image, 'one'),
  },
  {
    name: 'never-confirmed',
    isServable: true,
    build: built('never-confirmed'),
    bring: async (scene, image) => {
      await scene.push('never-confirmed', image);
      await scene.pullDirectly('never-confirmed', 'one');
    },
  },
  {
    name: 'of-a-silent-registry',
    isServable: false,
    because: 'registry-never-seen',
    isSilentHost: true,
    build: built('of-a-silent-registry'),
    bring: async (scene, image) => {
      await scene.push('of-a-silent-registry', image);
      await scene.pullDirectly('of-a-silent-registry', 'two');
      const { containerd } = scene.node('two');
      const pulled = scene.reference('of-a-silent-registry');
      const named = scene.reference('of-a-silent-registry', scene.silentHost);
      await containerd.ctr(['images', 'tag', pulled, named]);
    },
  },
  {
    name: 'bypassed',
    isServable: false,
    because: 'policy',
    build: built('bypassed'),
    bring: onNodes('one', 'two')('bypassed'),
  },
  {
    name: 'layer-let-go',
    isServable: false,
    because: 'passing',
    build: built('layer-let-go'),
    bring: onNodes('one')('layer-let-go'),
    letGo: (scene, image) => scene.unlabel(image.digest, 'l.0', 'one'),
    collected: (image) => layerOf(image, 0),
  },
  {
    name: 'manifest-let-go',
    isServable: false,
    because: 'passing',
    build: async (scene) => buildIndex([await built('manifest-let-go')(scene)]),
    bring: onNodes('one')('manifest-let-go'),
    letGo: (scene, image) => scene.unlabel(image.digest, 'm.0', 'one'),
    collected: (image) => childOf(image).digest,
  },
  {
    name: 'size-wrong',
    isServable: false,
    because: 'corrupt',
    build: withWrongSize,
    bring: async (scene, image) => scene.fill('size-wrong', image, 'two'),
  },
  {
    name: 'tag-moved',
    isServable: false,
    because: 'tag-moved',
    build: built('tag-moved'),
    bring: async (scene, image) => {
      await onNodes('one', 'two')('tag-moved')(scene, image);
      await scene.push('tag-moved', await built('tag-moved-further')(scene));
      await scene.confirmTag('tag-moved', 'one');
    },
  },
];

/** The image that this machine's platform is given. */
function childOf(image: Image): Image {
  const child = image.children.find(({ platform }) => platform === hostPlatform);
  return child ?? image;
}
