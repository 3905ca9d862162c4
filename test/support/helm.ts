import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot, toolsDirectory } from './tools.ts';

/** The Go module that pins Helm and the types of the Kubernetes API. */
export const checkModule = join(repositoryRoot, 'test', 'chart', 'check');

/** The chart itself. */
export const chartDirectory = join(repositoryRoot, 'charts', 'salvor');

/** Where `npm run test:helm` puts what it builds; another place for other sources. */
export function chartToolsDirectory(): string {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum', 'main.go', 'helm.go']) {
    hash.update(readFileSync(join(checkModule, file)));
  }
  return join(toolsDirectory, `chart-${hash.digest('hex').slice(0, 12)}`);
}

/** What a program said, and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs Helm on this repository's chart. It is given no cluster, and no settings of the user.
 *
 * @throws when Helm was not built
 */
export function helm(...arguments_: readonly string[]): Ended {
  return runTool('helm', arguments_, '');
}

/** Runs the check of rendered objects. @param yaml is given to it on standard input */
export function chartCheck(yaml: string, expressions: readonly string[] = []): Ended {
  return runTool('chart-check', expressions, yaml);
}

function runTool(name: string, arguments_: readonly string[], input: string): Ended {
  const program = join(chartToolsDirectory(), name);
  if (!existsSync(program)) {
    throw new Error(`Cannot find ${name}: run \`npm run test:helm\``);
  }
  const { error, status, stderr, stdout } = spawnSync(program, arguments_, {
    input,
    encoding: 'utf8',
    timeout: 20_000,
    maxBuffer: 16 * 1024 * 1024,
    env: { PATH: process.env['PATH'], HOME: '/nonexistent', KUBECONFIG: '/nonexistent' },
  });
  if (error !== undefined) throw error;
  return { code: status, stdout, stderr };
}
