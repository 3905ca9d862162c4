import { readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** Files that were set aside and are kept for people to look at. */
const MAX_BROKEN_FILES = 3;

/**
 * Gives a broken file of SQLite another name, without its journal. Of those before, the latest stay.
 *
 * @param nowMs milliseconds since the epoch, a part of the name
 * @returns where the file went
 * @throws when it cannot be renamed
 */
export function setAside(path: string, nowMs: number): string {
  const prefix = `${basename(path)}.broken-`;
  const aside = join(dirname(path), `${prefix}${nowMs}`);
  renameSync(path, aside);
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
  const broken = readdirSync(dirname(path)).filter((name) => name.startsWith(prefix));
  for (const name of broken.sort().slice(0, -MAX_BROKEN_FILES)) {
    rmSync(join(dirname(path), name), { force: true, recursive: true });
  }
  return aside;
}
