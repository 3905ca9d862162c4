import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { repositoryRoot } from './tools.ts';

const run = promisify(execFile);

/** How Salvor's processes are started. */
export interface ProgramPath {
  /** The Node binary. */
  readonly command: string;
  /** The program that it runs. */
  readonly main: string;
  /** What its environment has beside this process's own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** The sources as they are, run by this process's own Node. */
export const sourceProgram: ProgramPath = {
  command: process.execPath,
  main: join(repositoryRoot, 'src', 'main.ts'),
};

/** What the image sets in the environment of its processes. */
export function imageEnvironment(): Record<string, string> {
  const text = readFileSync(join(repositoryRoot, 'Dockerfile'), 'utf8');
  return Object.fromEntries(
    [...text.matchAll(/^ENV (\w+)=(\S+)$/gm)].map(([, name, value]) => [name, value]),
  ) as Record<string, string>;
}

/**
 * Builds the program that ships, to be run in the environment that it ships with.
 *
 * @throws when it cannot be built
 */
export async function buildProgram(): Promise<ProgramPath> {
  const tsc = join(repositoryRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-p', join(repositoryRoot, 'tsconfig.json')]);
  const main = join(repositoryRoot, 'dist', 'main.js');
  return { command: process.execPath, main, env: imageEnvironment() };
}
