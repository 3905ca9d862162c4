/**
 * Builds Helm, and the check of what the chart renders, into `.tools/` with the Go toolchain of
 * this machine. Versions are those of test/chart/check/go.mod. What is there already stays.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { checkModule, chartToolsDirectory } from '../test/support/helm.ts';
import { toolsDirectory } from '../test/support/tools.ts';
import { BuildError, go, requireGo } from './go.ts';

const timeoutMs = 20 * 60_000;
const helmModule = 'helm.sh/helm/v3';
const commonFlags = ['-mod=readonly', '-trimpath', '-buildvcs=false'];

function main(): void {
  const target = chartToolsDirectory();
  if (!existsSync(target)) build(target);
  console.log(`helm ${versionOf(helmModule)} and chart-check: ${target}`);
}

function build(target: string): void {
  requireGo({ what: 'helm', again: 'npm run test:helm' });
  console.log('helm and chart-check: building, which takes a minute or more');
  mkdirSync(toolsDirectory, { recursive: true });
  const directory = mkdtempSync(join(toolsDirectory, 'build-'));
  try {
    const output = ['-o', `${directory}/`];
    // Stripped: symbols take longer to write than to do without.
    goBuild(['-ldflags', `-s -w ${helmStamps()}`, ...output, `${helmModule}/cmd/helm`]);
    goBuild(['-ldflags', '-s -w', ...output, '.']);
    rmSync(target, { recursive: true, force: true });
    renameSync(directory, target);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function goBuild(arguments_: readonly string[]): void {
  go(['build', ...commonFlags, ...arguments_], { timeoutMs, cwd: checkModule });
}

/** What Helm's own releases are told of themselves: without it the cluster would be of 2020. */
function helmStamps(): string {
  const minor = /^v0\.(\d+)\./.exec(versionOf('k8s.io/client-go'))?.[1] ?? '';
  const packages = ['pkg/chartutil', 'pkg/lint/rules'];
  const values = [
    [`internal/version.version`, versionOf(helmModule)],
    ...packages.flatMap((name) => [
      [`${name}.k8sVersionMajor`, '1'],
      [`${name}.k8sVersionMinor`, minor],
    ]),
  ];
  return values.map(([name, value]) => `-X ${helmModule}/${name}=${value}`).join(' ');
}

function versionOf(module: string): string {
  const lines = readFileSync(join(checkModule, 'go.mod'), 'utf8').split('\n');
  const version = lines
    .map((line) => line.trim().split(' '))
    .find(([name]) => name === module)?.[1];
  if (version === undefined) throw new BuildError(`Cannot find the version of ${module}`);
  return version;
}

try {
  main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
