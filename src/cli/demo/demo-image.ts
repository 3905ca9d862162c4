import { createCipheriv, createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { machineArchitecture } from './platform.ts';

const MIB = 1024 * 1024;
const LAYER_BYTES = [2 * MIB, 8 * MIB, 64 * MIB];
const TAR_BLOCK = 512;
const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

interface Written {
  readonly digest: string;
  readonly size: number;
}

/**
 * Writes the demo's image into a directory that the demo's registry serves: blobs under the hex of
 * their digests, and `tags.json` with the digest of each tag. An index, a manifest, a config and
 * three layers that unpack; the same bytes every time.
 */
export async function writeDemoImage(
  directory: string,
  name: { readonly repository: string; readonly tag: string },
): Promise<void> {
  await mkdir(join(directory, 'blobs'), { recursive: true });
  const layers: (Written & { diffId: string })[] = [];
  for (const [index, sizeBytes] of LAYER_BYTES.entries()) {
    const tar = tarOf(`data-${index}.bin`, pseudoRandom(sizeBytes, index));
    const layer = gzipSync(tar, { level: 0 });
    layers.push({ ...(await writeBlob(directory, layer)), diffId: digestOf(tar) });
  }
  const platform = { architecture: machineArchitecture(), os: 'linux' };
  const config = await writeJson(directory, {
    ...platform,
    config: { Cmd: ['/bin/true'] },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = await writeJson(directory, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: layers.map(({ digest, size }) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest,
      size,
    })),
  });
  const index = await writeJson(directory, {
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: [{ mediaType: MANIFEST, ...manifest, platform }],
  });
  const tags = { [`${name.repository}:${name.tag}`]: index.digest };
  await writeFile(join(directory, 'tags.json'), JSON.stringify(tags));
}

async function writeJson(directory: string, value: unknown): Promise<Written> {
  return writeBlob(directory, Buffer.from(JSON.stringify(value)));
}

async function writeBlob(directory: string, bytes: Buffer): Promise<Written> {
  const digest = digestOf(bytes);
  await writeFile(join(directory, 'blobs', digest.slice('sha256:'.length)), bytes);
  return { digest, size: bytes.length };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

// A cipher over zeros: incompressible, quick, and the same on every machine.
function pseudoRandom(sizeBytes: number, seed: number): Buffer {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed + 1), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(sizeBytes));
}

// One file in the ustar format of POSIX.1-1988.
function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(TAR_BLOCK);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0', 257);
  header.write('00', 263);
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((TAR_BLOCK - (content.length % TAR_BLOCK)) % TAR_BLOCK);
  return Buffer.concat([header, content, padding, Buffer.alloc(2 * TAR_BLOCK)]);
}
