import { execFile } from 'node:child_process';
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
}

/** The sources as they are, run by this process's own Node. */
export const sourceProgram: ProgramPath = {
  command: process.execPath,
  main: join(repositoryRoot, 'src', 'main.ts'),
};

/**
 * Builds the program that ships.
 *
 * @throws when it cannot be built
 */
export async function buildProgram(): Promise<ProgramPath> {
  const tsc = join(repositoryRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-p', join(repositoryRoot, 'tsconfig.json')]);
  return { command: process.execPath, main: join(repositoryRoot, 'dist', 'main.js') };
}
