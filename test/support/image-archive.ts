import { readFile, writeFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import type { Blob, Image } from './image.ts';

/**
 * Writes an image as an archive that `ctr images import` reads, by the OCI image layout.
 *
 * @param options.name what the image is called when it has been imported
 */
export async function writeImageArchive(
  image: Image,
  options: { readonly path: string; readonly name: string },
): Promise<void> {
  const tar = pack();
  const { digest, mediaType, size } = image;
  const annotations = { 'io.containerd.image.name': options.name };
  const manifests = [{ mediaType, digest, size, annotations }];
  tar.entry({ name: 'oci-layout' }, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  tar.entry({ name: 'index.json' }, JSON.stringify({ schemaVersion: 2, manifests }));
  for (const { digest: name, bytes } of await filesOf(image)) {
    tar.entry({ name: `blobs/${name.replace(':', '/')}` }, bytes);
  }
  tar.finalize();
  await writeFile(options.path, await buffer(tar));
}

async function filesOf(image: Image): Promise<{ digest: string; bytes: Buffer }[]> {
  const files = [{ digest: image.digest, bytes: image.manifest }];
  for (const blob of image.blobs) files.push({ digest: blob.digest, bytes: await bytesOf(blob) });
  for (const child of image.children) files.push(...(await filesOf(child)));
  return files;
}

async function bytesOf(blob: Blob): Promise<Buffer> {
  return 'data' in blob ? blob.data : readFile(blob.path);
}
