import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** One blob on disk whose bytes have the digest that its name says. */
export interface StoredBlob {
  readonly digest: string;
  readonly sizeBytes: number;
}

interface Described {
  readonly digest: string;
  readonly size: number;
}

interface Document {
  readonly manifests?: readonly Described[];
  readonly config?: Described;
  readonly layers?: readonly Described[];
}

/**
 * Walks an image in a content store and recomputes every digest from the files. Of an index, the
 * manifests that are there count: a node keeps those of its own platform only.
 *
 * @param blobsDirectory has "sha256/<hex>", as in containerd's store and in OCI image layouts
 * @param root the digest of the index or manifest
 * @returns every blob of the image, once
 * @throws when a blob is missing or wrong
 */
export async function checkImage(blobsDirectory: string, root: string): Promise<StoredBlob[]> {
  const checked = new Map<string, StoredBlob>();
  const check = async (digest: string, size?: number): Promise<void> => {
    if (checked.has(digest)) return;
    checked.set(digest, await checkBlob(join(blobsDirectory, digest.replace(':', '/')), digest));
    const { sizeBytes = 0 } = checked.get(digest) ?? {};
    if (size !== undefined && size !== sizeBytes) {
      throw new Error(`Cannot trust ${digest}: it has ${sizeBytes} bytes instead of ${size}`);
    }
  };
  const read = async (digest: string): Promise<Document> => {
    await check(digest);
    const path = join(blobsDirectory, digest.replace(':', '/'));
    return JSON.parse(await readFile(path, 'utf8')) as Document;
  };
  const document = await read(root);
  const manifests: Document[] = document.manifests === undefined ? [document] : [];
  for (const { digest } of document.manifests ?? []) {
    const isThere = await stat(join(blobsDirectory, digest.replace(':', '/'))).then(
      () => true,
      () => false,
    );
    if (isThere) manifests.push(await read(digest));
  }
  if (manifests.length === 0) throw new Error(`Cannot find any manifest of ${root}`);
  for (const { config, layers = [] } of manifests) {
    for (const { digest, size } of [...(config ? [config] : []), ...layers]) {
      await check(digest, size);
    }
  }
  return [...checked.values()];
}

async function checkBlob(path: string, digest: string): Promise<StoredBlob> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    sizeBytes += chunk.length;
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== digest) {
    throw new Error(`Cannot trust ${path}: its bytes have the digest ${found}`);
  }
  return { digest, sizeBytes };
}
