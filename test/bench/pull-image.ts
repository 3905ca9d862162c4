import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { buildImage, type Image } from '../support/image.ts';
import type { LayerSpec } from '../support/layer.ts';

const mib = 1024 * 1024;
const layers = 4;
/** What the layers of an image have together, as they are pulled. */
const imageBytes = 256 * mib;
/** Smaller files would have the disk's directories measured, which differ most from pull to pull. */
const minFileBytes = 256 * 1024;
/** The last file of a layer may go beyond its size by so much, before it is compressed. */
const maxFileBytes = 32 * mib;

/** What the layers of an image to pull are made of. */
export type PullContent = 'files' | 'random';

/**
 * Builds an image of 256 MiB in four layers, as they are pulled: of this machine's programs and
 * libraries, which compress as those of any image do; or of random bytes, which do not, so that
 * unpacking them is next to no work and the transfer all the more of the whole.
 *
 * @param directory where its blobs are written
 */
export async function buildPullImage(directory: string, content: PullContent): Promise<Image> {
  return buildImage({
    directory,
    layers: content === 'random' ? randomLayers() : await fileLayers(),
  });
}

function randomLayers(): LayerSpec[] {
  return Array.from({ length: layers }, (_, index) => ({
    randomBytes: imageBytes / layers,
    seed: `layer ${index}`,
  }));
}

async function fileLayers(): Promise<LayerSpec[]> {
  const paths = await installedFiles();
  return Array.from({ length: layers }, (_, index) => ({
    copies: {
      of: paths.filter((_path, position) => position % layers === index),
      packedBytes: imageBytes / layers,
    },
  }));
}

/** Programs and libraries, well mixed, always in the same order. */
async function installedFiles(): Promise<string[]> {
  const found: { readonly path: string; readonly key: string }[] = [];
  for (const root of ['/usr/bin', '/usr/lib']) {
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const { size } = await stat(path);
      if (size < minFileBytes || size > maxFileBytes) continue;
      found.push({ path, key: createHash('sha256').update(path).digest('hex') });
    }
  }
  if (found.length < layers) throw new Error('Cannot make an image: too few files below /usr');
  return found.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ path }) => path);
}
