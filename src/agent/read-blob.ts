import { digestAlgorithm, digestOf } from '../oci/digest.ts';
import type { OpenBlob, StoreCallOptions } from './store.ts';

/**
 * Fills `target` from byte `position` of a blob, in as many reads as it takes.
 *
 * @returns how many bytes there were; fewer than asked for only where the blob ends early
 * @throws when the bytes can no longer be read, or the reason of the signal
 */
export async function readInto(
  blob: Pick<OpenBlob, 'read'>,
  target: Uint8Array,
  { position, signal }: StoreCallOptions & { readonly position: number },
): Promise<number> {
  let filled = 0;
  while (filled < target.length) {
    signal?.throwIfAborted();
    const count = await blob.read(target.subarray(filled), position + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

/**
 * Reads all of a blob, which must be small enough for memory.
 *
 * @returns undefined when its bytes are not those of its digest
 * @throws as {@link readInto}
 */
export async function readWhole(
  blob: Pick<OpenBlob, 'digest' | 'read' | 'sizeBytes'>,
  options: StoreCallOptions = {},
): Promise<Buffer | undefined> {
  const bytes = Buffer.allocUnsafe(blob.sizeBytes);
  const filled = await readInto(blob, bytes, { ...options, position: 0 });
  const isRight =
    filled === bytes.length && digestOf(bytes, digestAlgorithm(blob.digest)) === blob.digest;
  return isRight ? bytes : undefined;
}
