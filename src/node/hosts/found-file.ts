import { createHash } from 'node:crypto';
import { lstat, readFile, readlink, stat } from 'node:fs/promises';

import { RefusalError } from './hosts-toml.ts';
import { isMissing } from './registry-directory.ts';

const MAX_BYTES = 1024 * 1024;

/** What there was at a path, enough to make it anew. Bytes of files are kept elsewhere. */
export type Original =
  | { readonly kind: 'absent' }
  | {
      readonly kind: 'file';
      readonly sha256: string;
      readonly mode: number;
      readonly uid: number;
      readonly gid: number;
      /** Milliseconds since the epoch, with fractions. */
      readonly modifiedAtMs: number;
    }
  | {
      readonly kind: 'link';
      readonly target: string;
      readonly uid: number;
      readonly gid: number;
      /** Of what it leads to; undefined: nowhere. */
      readonly mode?: number;
    };

/** A hosts.toml as it is. */
export interface FoundFile {
  readonly original: Original;
  /** What containerd reads; undefined: nothing. */
  readonly bytes: Buffer | undefined;
  readonly sha256: string | undefined;
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Reads a hosts.toml, through a link if it is one.
 *
 * @throws RefusalError for what is no file, cannot be read, or is larger than 1 MiB
 */
export async function findFile(path: string): Promise<FoundFile> {
  try {
    const own = await lstat(path);
    const target = own.isSymbolicLink() ? await readlink(path) : undefined;
    const found = target === undefined ? own : await stat(path).catch(missing);
    if (found === undefined) {
      const { uid, gid } = own;
      const original = { kind: 'link', target: target ?? '', uid, gid } as const;
      return { original, bytes: undefined, sha256: undefined };
    }
    if (!found.isFile()) throw new RefusalError('it is no file', 'make it one');
    if (found.size > MAX_BYTES) {
      throw new RefusalError(`it has ${found.size} bytes`, `keep it below ${MAX_BYTES}`);
    }
    const bytes = await readFile(path);
    const hash = sha256(bytes);
    const mode = found.mode & 0o7777;
    const { uid, gid } = own;
    return {
      original:
        target === undefined
          ? { kind: 'file', sha256: hash, mode, uid, gid, modifiedAtMs: own.mtimeMs }
          : { kind: 'link', target, uid, gid, mode },
      bytes,
      sha256: hash,
    };
  } catch (error) {
    if (isMissing(error))
      return { original: { kind: 'absent' }, bytes: undefined, sha256: undefined };
    if (error instanceof RefusalError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new RefusalError(`it cannot be read: ${reason}`, 'make it readable');
  }
}

function missing(error: unknown): undefined {
  if (!isMissing(error)) throw error;
  return undefined;
}
