import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, realpath, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestScope } from './test-scope.ts';
import { repositoryRoot } from './tools.ts';

/** Where such a container sees the node's own "/". */
export const hostRoot = '/host';

const timeoutMs = 60_000;
// Arguments: the new root, how many directories of this machine it has, those, the command.
const script = `
  root=$1; count=$2; shift 2
  mount -t tmpfs none "$root"
  mkdir -p "$root${repositoryRoot}" "$root${hostRoot}" "$root/tmp"
  cp package.json "$root${repositoryRoot}/"
  while [ "$count" -gt 0 ]; do
    mkdir -p "$root$1"; mount --rbind "$1" "$root$1"; shift; count=$((count - 1))
  done
  [ -e "$root${repositoryRoot}/node_modules" ] || cp -P node_modules "$root${repositoryRoot}/"
  mount --rbind / "$root${hostRoot}"
  exec chroot "$root" "$@"`;

/**
 * Runs the program as `kubectl debug node/…` runs containers: with the processes and the network of
 * the node, as root, and a root of its own that has the node's below {@link hostRoot}.
 *
 * @returns how it ended, and what it wrote
 */
export async function runInDebugContainer(
  scope: TestScope,
  arguments_: readonly string[],
): Promise<{ readonly code: number; readonly out: string; readonly error: string }> {
  const root = await mkdtemp(join(tmpdir(), 'salvor-debug-'));
  scope.defer(() => rmdir(root));
  const directories = [
    ...['/usr', '/bin', '/lib', '/lib64', '/proc', '/dev'].filter((path) => existsSync(path)),
    join(repositoryRoot, 'src'),
    await realpath(join(repositoryRoot, 'node_modules')),
    dirname(process.execPath),
  ];
  const main = join(repositoryRoot, 'src/main.ts');
  return new Promise((resolve) => {
    execFile(
      'unshare',
      [
        ...['--mount', '--propagation', 'private', 'sh', '-ec', script, 'sh'],
        ...[root, String(directories.length), ...directories],
        ...[process.execPath, main, ...arguments_],
      ],
      {
        cwd: repositoryRoot,
        timeout: timeoutMs,
        env: { PATH: process.env['PATH'], HOME: '/root' },
      },
      (error, out, errorText) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), out, error: errorText });
      },
    );
  });
}
