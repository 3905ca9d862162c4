import { spawnSync } from 'node:child_process';
import { repositoryRoot } from '../test/support/tools.ts';

/** A program could not be built. The message is for the user. */
export class BuildError extends Error {}

const maxOutputBytes = 64 * 1024 * 1024;

/**
 * Makes sure that there is a Go toolchain.
 *
 * @param options.what is to be built; ends "Cannot build …"
 * @param options.again the command to repeat with Go at hand
 * @throws {BuildError} when there is none
 */
export function requireGo({ what, again }: { what: string; again: string }): void {
  if (spawnSync('go', ['version']).status === 0) return;
  throw new BuildError(
    `Cannot build ${what} without Go: install it (https://go.dev/doc/install, or the golang ` +
      `package of your system) so that \`go version\` works, and run \`${again}\` again. ` +
      'Other tests need none of this: `npm test`.',
  );
}

/**
 * Runs go, without cgo and without settings of this machine that are not meant for the module.
 *
 * @param options.cwd the repository where left out
 * @returns the standard output
 * @throws {BuildError} with all that it said, when it fails
 */
export function go(
  arguments_: readonly string[],
  options: { readonly timeoutMs: number; readonly cwd?: string },
): string {
  const result = spawnSync('go', arguments_, {
    cwd: options.cwd ?? repositoryRoot,
    // Without cgo neither a C compiler nor headers are needed.
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '', GOWORK: 'off' },
    encoding: 'utf8',
    maxBuffer: maxOutputBytes,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: options.timeoutMs,
  });
  if (result.status === 0) return result.stdout;
  const reason = result.error?.message ?? [result.stdout, result.stderr].join('\n').trim();
  throw new BuildError(`Cannot run go ${arguments_.slice(0, 2).join(' ')}: ${reason}`);
}
