/**
 * Builds the containerd releases that the fault tests run against, each into a directory of its
 * own in `.tools/`, with the Go toolchain of this machine. What is there already stays. Arguments:
 * the versions to build, such as `2.3`; all unless told.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  binDirectory,
  containerdVersion,
  containerdVersions,
  type ContainerdVersion,
} from '../test/support/containerd-version.ts';
import { toolsDirectory } from '../test/support/tools.ts';
import { BuildError, go, requireGo } from './go.ts';

const programs = ['containerd', 'ctr'] as const;
// Snapshotters that need headers or tools of the machine; pulls use none of them.
const buildTags = 'no_btrfs no_devmapper no_zfs no_aufs';
const downloadTimeoutMs = 10 * 60_000;
const buildTimeoutMs = 20 * 60_000;

function main(): void {
  const names = process.argv.slice(2);
  const wanted = names.length === 0 ? containerdVersions : names.map(findVersion);
  const missing = wanted.filter((version) => builtVersion(version) === undefined);
  if (missing.some(({ release }) => release !== undefined)) {
    requireGo({ what: 'containerd', again: 'npm run test:containerd' });
  }
  for (const version of wanted) {
    if (version.release === undefined) continue;
    if (missing.includes(version)) build(version, version.release);
    console.log(`containerd ${version.name}: ${builtVersion(version) ?? 'missing'}`);
  }
}

function findVersion(name: string): ContainerdVersion {
  try {
    return containerdVersion(name);
  } catch (error) {
    throw new BuildError((error as Error).message, { cause: error });
  }
}

/** @returns the program's own words, or undefined when it is not there as a whole */
function builtVersion({ release }: ContainerdVersion): string | undefined {
  if (release === undefined) return undefined;
  const directory = binDirectory(release);
  if (!programs.every((program) => existsSync(join(directory, program)))) return undefined;
  const result = spawnSync(join(directory, 'containerd'), ['--version'], { encoding: 'utf8' });
  if (result.status !== 0 || !result.stdout.includes(release)) return undefined;
  return result.stdout.trim();
}

function build({ module }: ContainerdVersion, release: string): void {
  const begin = performance.now();
  console.log(`containerd ${release}: fetching the source`);
  // Built as the main module in its own source: `go install` refuses modules whose go.mod excludes
  // versions of others, and some releases have such a go.mod.
  const source = moduleDirectory(`${module}@v${release}`);
  console.log(`containerd ${release}: building, which takes a minute or more`);
  mkdirSync(toolsDirectory, { recursive: true });
  const directory = mkdtempSync(join(toolsDirectory, 'build-'));
  try {
    const packages = programs.map((program) => `./cmd/${program}`);
    const flags = ['-mod=readonly', '-trimpath', '-buildvcs=false', '-tags', buildTags];
    // Otherwise the release calls itself unknown, to registries too.
    const stamp = ['-ldflags', `-X ${module}/version.Version=v${release}`];
    const output = ['-o', `${directory}/`, ...packages];
    go(['build', '-C', source, ...flags, ...stamp, ...output], { timeoutMs: buildTimeoutMs });
    const target = binDirectory(release);
    rmSync(target, { recursive: true, force: true });
    mkdirSync(dirname(target), { recursive: true });
    renameSync(directory, target);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  console.log(`containerd ${release}: ${Math.round((performance.now() - begin) / 1000)} s`);
}

/** Downloads a module, unless it is in Go's cache. @returns where its files are */
function moduleDirectory(module: string): string {
  const answer = go(['mod', 'download', '-json', module], { timeoutMs: downloadTimeoutMs });
  const { Dir: directory } = JSON.parse(answer) as { Dir?: string };
  if (directory === undefined) throw new BuildError(`Cannot download ${module}: ${answer}`);
  return directory;
}

try {
  main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
