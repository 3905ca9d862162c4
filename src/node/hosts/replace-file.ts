import { lchown, open, rename, rm, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import type { Original } from './found-file.ts';

/** Told before and after everything that changes the disk; tests end the process there. */
export type OnStep = (step: string) => void | Promise<void>;

export interface ReplaceOptions {
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly modifiedAtMs?: number;
  readonly onStep?: OnStep | undefined;
}

/** The one name under which a new file waits beside an old one; left behind only by a kill. */
export function waitingPath(path: string): string {
  return join(dirname(path), `.${basename(path)}.salvor-new`);
}

/**
 * Puts a file into place: at every moment there is the old one or the new one, in full.
 *
 * @throws when it cannot be written, naming it; nothing of it is left beside the old one
 */
export async function replaceFile(
  path: string,
  bytes: Uint8Array | string,
  options: ReplaceOptions,
): Promise<void> {
  const waiting = waitingPath(path);
  try {
    await rm(waiting, { force: true });
    await writeNew(path, bytes, options);
    await rename(waiting, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    // A disk that is full needs the room.
    await rm(waiting, { force: true }).catch(() => undefined);
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot write ${path}: ${reason}`, { cause: error });
  }
  await options.onStep?.(`done ${path}`);
}

async function writeNew(
  path: string,
  bytes: Uint8Array | string,
  { mode, uid, gid, modifiedAtMs, onStep }: ReplaceOptions,
): Promise<void> {
  const file = await open(waitingPath(path), 'wx', 0o600);
  try {
    await onStep?.(`begin ${path}`);
    await file.writeFile(bytes);
    if (uid !== undefined && gid !== undefined) await file.chown(uid, gid);
    // After the owner, which takes special bits away.
    await file.chmod(mode);
    if (modifiedAtMs !== undefined) await file.utimes(modifiedAtMs / 1000, modifiedAtMs / 1000);
    await file.sync();
  } finally {
    await file.close();
  }
  await onStep?.(`written ${path}`);
}

/** Puts back what there was at a path, in one step. */
export async function putBack(
  path: string,
  original: Original,
  options: { readonly bytes: Buffer | undefined; readonly onStep?: OnStep | undefined },
): Promise<void> {
  const { bytes, onStep } = options;
  if (original.kind === 'file') {
    if (bytes === undefined) throw new Error(`Cannot put ${path} back: its copy is missing`);
    return replaceFile(path, bytes, { ...original, onStep });
  }
  if (original.kind === 'absent') {
    await rm(path, { force: true });
  } else {
    const waiting = waitingPath(path);
    await rm(waiting, { force: true });
    await symlink(original.target, waiting);
    await lchown(waiting, original.uid, original.gid);
    await onStep?.(`written ${path}`);
    await rename(waiting, path);
  }
  await syncDirectory(dirname(path));
  await onStep?.(`done ${path}`);
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
