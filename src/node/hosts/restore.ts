import { rm, rmdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

import { findFile } from './found-file.ts';
import { isSame } from './hosts-plan.ts';
import { RefusalError } from './hosts-toml.ts';
import type { InstallOptions } from './install.ts';
import { putOriginalBack } from './install.ts';
import type { InstallState, RecordedFile } from './install-record.ts';
import { findOwnEntry, withoutOwnEntry } from './own-entry.ts';
import { replaceFile, waitingPath, type OnStep } from './replace-file.ts';
import { isMissing } from './registry-directory.ts';
import { writeUpstreamFiles } from './upstream-files.ts';

/** What became of one hosts.toml. */
export interface RestoredFile {
  readonly path: string;
  /**
   * restored: as it was, to the byte; changed: somebody's changes are kept, only Salvor's entry is
   * gone; foreign: it is somebody else's by now and was left; failed: it still is as Salvor left it.
   */
  readonly outcome: 'restored' | 'changed' | 'foreign' | 'failed';
  readonly reason?: string;
}

/**
 * Undoes everything that was installed. What somebody has changed since is kept, unless forced.
 * May be ended at any moment and begun again.
 *
 * @returns what became of each file; where one has failed, the record stays
 */
export async function restore(
  options: Pick<InstallOptions, 'upstreamDirectory'> & { readonly isForced?: boolean },
  dependencies: { readonly state: InstallState; readonly onStep?: OnStep },
): Promise<readonly RestoredFile[]> {
  const { state, onStep } = dependencies;
  const record = await state.load();
  const outcomes: RestoredFile[] = [];
  for (const file of record.files) {
    try {
      outcomes.push(await restoreFile(file, options, dependencies));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      outcomes.push({ path: file.path, outcome: 'failed', reason });
    }
  }
  const failed = record.files.filter((_, index) => outcomes[index]?.outcome === 'failed');
  if (failed.length > 0) {
    // Those are still sent to the registry, which has to know where to go for them.
    await state.save({ ...record, files: failed });
    return outcomes;
  }
  await writeUpstreamFiles(options.upstreamDirectory, new Map(), { onStep });
  for (const directory of record.directories.toReversed()) {
    // One that is in use by now stays.
    await rmdir(directory).catch(() => undefined);
  }
  await onStep?.('before the record is removed');
  await rm(state.directory, { recursive: true, force: true });
  return outcomes;
}

async function restoreFile(
  file: RecordedFile,
  { isForced = false }: { readonly isForced?: boolean },
  dependencies: { readonly state: InstallState; readonly onStep?: OnStep },
): Promise<RestoredFile> {
  const { path, original, written } = file;
  await rm(waitingPath(path), { force: true }).catch((error: unknown) => {
    if (
      !isMissing(error) &&
      !(error instanceof Error && 'code' in error && error.code === 'ENOTDIR')
    ) {
      throw error;
    }
  });
  const found = await findFile(path).catch((error: unknown) => {
    if (error instanceof RefusalError) return undefined;
    throw error;
  });
  if (found === undefined) return { path, outcome: 'foreign', reason: 'it is no file any more' };
  const isOurs = found.sha256 !== undefined && written.includes(found.sha256);
  if (!isOurs && isSame(found.original, original)) return { path, outcome: 'restored' };
  if (isOurs || (isForced && (await isDirectoryThere(path)))) {
    await putOriginalBack(file, dependencies);
    return { path, outcome: 'restored' };
  }
  const text = found.bytes?.toString('utf8');
  if (text === undefined || found.original.kind !== 'file' || findOwnEntry(text) === undefined) {
    return { path, outcome: 'foreign', reason: 'it was replaced since it was written' };
  }
  const { onStep } = dependencies;
  await replaceFile(path, withoutOwnEntry(text), { ...found.original, onStep });
  return { path, outcome: 'changed', reason: 'it was changed since it was written' };
}

async function isDirectoryThere(path: string): Promise<boolean> {
  return stat(dirname(path)).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
