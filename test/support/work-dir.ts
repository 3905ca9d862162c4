import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { repositoryRoot } from './tools.ts';

const execute = promisify(execFile);
const umountTimeoutMs = 10_000;

/** The directory below which all tests keep their files: on a real file system, unlike /tmp often. */
export const workRoot = join(repositoryRoot, '.work');

/** Environment variable that names the test run, so that runs at the same time can be told apart. */
export const runVariable = 'SALVOR_TEST_RUN';

/**
 * Makes a fresh directory below {@link workRoot}.
 *
 * @param name tells people whose it is
 */
export async function makeWorkDirectory(name: string): Promise<string> {
  mkdirSync(workRoot, { recursive: true });
  const run = process.env[runVariable];
  const parts = [name.replaceAll(/[^\w.-]+/g, '-'), ...(run === undefined ? [] : [run])];
  return mkdtemp(join(workRoot, `${parts.join('-')}-`));
}

/** Makes a directory whose path is short: the path of a unix socket may have 107 bytes only. */
export async function makeSocketDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'salvor-'));
}

/** Unmounts everything below a directory and removes it. */
export async function removeDirectory(directory: string): Promise<void> {
  // Deepest first: a mount below another one keeps it busy.
  for (const mount of (await mountsBelow(directory)).reverse()) {
    await execute('umount', ['-l', mount], { timeout: umountTimeoutMs });
  }
  await rm(directory, { recursive: true, force: true, maxRetries: 3, retryDelay: 100 });
}

/** @returns the mount points below a directory, in the order in which they were mounted */
export async function mountsBelow(directory: string): Promise<string[]> {
  const table = await readFile('/proc/self/mounts', 'utf8').catch(() => '');
  return table
    .split('\n')
    .map((line) => unescapeMount(line.split(' ')[1] ?? ''))
    .filter((path) => path.startsWith(`${directory}/`));
}

function unescapeMount(path: string): string {
  return path.replaceAll(/\\(\d{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
