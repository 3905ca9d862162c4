import { createCipheriv, createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { constants, createGzip, createZstdCompress } from 'node:zlib';
import { pack, type Pack } from 'tar-stream';

const randomChunkBytes = 1024 * 1024;
const defaultGzipLevel = 1;

export type Compression = 'gzip' | 'zstd' | 'none';

/** What a layer contains. */
export interface LayerSpec {
  /** Contents by path, without a leading slash. */
  readonly files?: Readonly<Record<string, string | Buffer>>;
  /** Size of one more file, `data.bin`, of bytes that do not compress. */
  readonly randomBytes?: number;
  /** Files of this machine: so many of them, over and over, as fill the layer to a size. */
  readonly copies?: {
    /** Absolute paths. */
    readonly of: readonly string[];
    /** What the layer is to have when it is compressed, about. */
    readonly packedBytes: number;
  };
  /** Makes those bytes, and so the digest, differ from those of other layers. */
  readonly seed?: string;
  /** Overrides the image's compression. */
  readonly compression?: Compression;
  /** 0 (stored) to 9. For big random data 0 is the quickest. */
  readonly gzipLevel?: number;
}

/** Bytes on disk by their digest. */
export interface BlobFile {
  readonly digest: string;
  readonly size: number;
  readonly path: string;
}

/** A layer as a manifest refers to it, with the digest of its uncompressed tar. */
export interface BuiltLayer extends BlobFile {
  readonly diffId: string;
  readonly compression: Compression;
}

/**
 * Writes a layer into a directory, without holding it in memory. The same spec always gives the
 * same bytes.
 */
export async function buildLayer(
  spec: LayerSpec,
  options: { readonly directory: string; readonly compression: Compression },
): Promise<BuiltLayer> {
  const compression = spec.compression ?? options.compression;
  await mkdir(options.directory, { recursive: true });
  const partial = join(options.directory, `partial-${crypto.randomUUID()}`);
  const plain = new Tap();
  const packed = new Tap();
  const tar = pack();
  await Promise.all([
    pipeline([
      // Types of the package know nothing of Node's streams.
      Readable.from(tar as unknown as AsyncIterable<Buffer>, { objectMode: false }),
      plain,
      ...compressors(compression, spec.gzipLevel),
      packed,
      createWriteStream(partial),
    ]),
    writeEntries(tar, spec, () => packed.size),
  ]);
  const { digest, size } = packed.result();
  const path = join(options.directory, digest.replace(':', '-'));
  await rename(partial, path);
  return { digest, size, path, diffId: plain.result().digest, compression };
}

/**
 * Bytes that look random and depend on the seed alone.
 *
 * @param size how many
 */
function randomStream(size: number, seed: string): Readable {
  return Readable.from(randomChunks(size, seed), { objectMode: false });
}

/** @returns "sha256:…" of the bytes */
export function sha256(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function* randomChunks(size: number, seed: string): Generator<Buffer> {
  const key = createHash('sha256').update(seed).digest();
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(randomChunkBytes);
  for (let left = size; left > 0; left -= randomChunkBytes) {
    yield cipher.update(left >= randomChunkBytes ? zeros : zeros.subarray(0, left));
  }
}

async function writeEntries(tar: Pack, spec: LayerSpec, packedBytes: () => number): Promise<void> {
  const files = Object.entries(spec.files ?? {});
  for (const directory of parentDirectories(files.map(([path]) => path))) {
    tar.entry({ name: `${directory}/`, type: 'directory', mode: 0o755, mtime: new Date(0) });
  }
  for (const [name, content] of files) {
    tar.entry({ name, mode: 0o644, mtime: new Date(0) }, Buffer.from(content));
  }
  if (spec.randomBytes !== undefined && spec.randomBytes > 0) {
    const seed = spec.seed ?? 'salvor';
    // The name carries the seed: layers of one image then do not hide each other's files.
    const name = `data-${sha256(seed).slice(7, 15)}.bin`;
    const entry = tar.entry({ name, size: spec.randomBytes, mode: 0o644, mtime: new Date(0) });
    await pipeline(randomStream(spec.randomBytes, seed), entry);
  }
  if (spec.copies !== undefined) await writeCopies(tar, spec.copies, packedBytes);
  tar.finalize();
}

async function writeCopies(
  tar: Pack,
  copies: NonNullable<LayerSpec['copies']>,
  packedBytes: () => number,
): Promise<void> {
  for (let round = 0; packedBytes() < copies.packedBytes; round += 1) {
    for (const path of copies.of) {
      if (packedBytes() >= copies.packedBytes) return;
      const content = await readFile(path);
      const name = `${round}${path}`;
      const entry = tar.entry({ name, size: content.length, mode: 0o644, mtime: new Date(0) });
      await pipeline(Readable.from([content]), entry);
    }
  }
}

function parentDirectories(paths: readonly string[]): string[] {
  const directories = paths.flatMap((path) => {
    const parts = path.split('/').slice(0, -1);
    return parts.map((_, index) => parts.slice(0, index + 1).join('/'));
  });
  return [...new Set(directories)].sort();
}

function compressors(compression: Compression, gzipLevel = defaultGzipLevel): Transform[] {
  switch (compression) {
    case 'gzip':
      return [createGzip({ level: gzipLevel })];
    case 'zstd':
      return [createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 1 } })];
    case 'none':
      return [];
  }
}

/** Hashes and counts what passes. */
class Tap extends Transform {
  readonly #hash = createHash('sha256');
  #size = 0;

  override _transform(
    chunk: Buffer,
    _encoding: string,
    callback: (error: null, chunk: Buffer) => void,
  ): void {
    this.#hash.update(chunk);
    this.#size += chunk.length;
    callback(null, chunk);
  }

  get size(): number {
    return this.#size;
  }

  result(): { digest: string; size: number } {
    return { digest: `sha256:${this.#hash.digest('hex')}`, size: this.#size };
  }
}
