import { createCipheriv, createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const LAYER_BYTES = [2_000_000, 8_000_000, 48_000_000];
const TAR_BLOCK = 512;

/**
 * Writes the demo's image into a directory that the demo's registry serves: blobs under their
 * digests and the manifest of the tag. The same bytes every time, and such that they unpack.
 *
 * @returns the digest of the manifest
 */
export async function writeDemoImage(
  directory: string,
  name: { readonly repository: string; readonly tag: string },
): Promise<string> {
  await mkdir(join(directory, 'blobs'), { recursive: true });
  const layers: { digest: string; size: number; diffId: string }[] = [];
  for (const [index, sizeBytes] of LAYER_BYTES.entries()) {
    const tar = tarOf(`data-${index}.bin`, pseudoRandom(sizeBytes, index));
    const layer = gzipSync(tar, { level: 0 });
    layers.push({ ...(await writeBlob(directory, layer)), diffId: sha256(tar) });
  }
  const config = await writeBlob(
    directory,
    json({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: { Cmd: ['/bin/true'] },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    }),
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = json({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: layers.map(({ digest, size }) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest,
      size,
    })),
  });
  const { digest } = await writeBlob(directory, manifest);
  await writeFile(
    join(directory, 'tags.json'),
    JSON.stringify({ [`${name.repository}:${name.tag}`]: { digest, mediaType } }),
  );
  return digest;
}

async function writeBlob(
  directory: string,
  bytes: Buffer,
): Promise<{ digest: string; size: number }> {
  const digest = sha256(bytes);
  await writeFile(join(directory, 'blobs', digest.replace(':', '-')), bytes);
  return { digest, size: bytes.length };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function sha256(bytes: Buffer): string {
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
