/**
 * Brings the programs that the integration tests start. What is on the PATH is used as it is; what
 * is missing is downloaded as Debian packages and unpacked into `.tools/`. Nothing is installed on
 * the machine and no service is started.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  findTool,
  libraryDirectories,
  toolEnv,
  tools,
  toolsDirectory,
  type Tool,
} from '../test/support/tools.ts';

const aptTimeoutMs = 180_000;
// Libraries need libraries; more rounds than this mean that something else is wrong.
const maxLibraryRounds = 5;
const privateLists = join(toolsDirectory, 'apt');

class SetupError extends Error {}

function main(): void {
  requireRoot();
  const missing = tools.filter((tool) => findTool(tool.name) === undefined);
  if (missing.length > 0) requireApt(missing);
  for (const packageName of new Set(missing.map((tool) => tool.packageName))) {
    console.log(`Downloading ${packageName}`);
    unpack([packageName]);
  }
  for (const tool of tools) completeLibraries(tool);
  printTable();
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new SetupError(
    'Cannot set up the integration tests as an ordinary user: they start real containerd ' +
      'daemons, which mount filesystems and so need root. Run them as root, for instance in a ' +
      'container or a virtual machine. The unit and contract tests need no root: `npm run check`.',
  );
}

function requireApt(missing: readonly Tool[]): void {
  const programs = ['apt-get', 'apt-cache', 'dpkg', 'ldd'];
  const lacking = programs.filter((program) => findTool(program) === undefined);
  if (lacking.length === 0) return;
  const lines = missing.map(
    (tool) => `  ${tool.name}: apt-get install ${tool.packageName} (or your system's package)`,
  );
  throw new SetupError(
    `Cannot download programs without ${lacking.join(', ')}. Install them yourself, so that ` +
      `they are on the PATH:\n${lines.join('\n')}`,
  );
}

/**
 * Unpacks the first of the packages that exists.
 *
 * @returns whether one of them does
 */
function unpack(candidates: readonly string[]): boolean {
  for (const options of [[], privateListOptions()]) {
    for (const candidate of candidates) {
      if (unpackWith(options, candidate)) return true;
    }
    // The machine's own lists may be empty or too old to name files that still exist.
    if (options.length === 0) updatePrivateLists();
  }
  throw new SetupError(`Cannot download a package named ${candidates.join(' or ')}`);
}

function unpackWith(options: readonly string[], packageName: string): boolean {
  const known = apt('apt-cache', [...options, 'show', '--no-all-versions', packageName]);
  if (known.status !== 0) return false;
  mkdirSync(toolsDirectory, { recursive: true });
  const directory = mkdtempSync(join(toolsDirectory, 'deb-'));
  try {
    const arguments_ = ['-q', ...options, '-o', 'APT::Sandbox::User=root', 'download', packageName];
    if (apt('apt-get', arguments_, directory).status !== 0) return false;
    for (const file of readdirSync(directory)) {
      execFileSync('dpkg', ['-x', join(directory, file), toolsDirectory]);
    }
    return true;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function privateListOptions(): string[] {
  return [
    ...['-o', `Dir::State::lists=${join(privateLists, 'lists')}`],
    ...['-o', `Dir::Cache=${join(privateLists, 'cache')}`],
    ...['-o', 'APT::Sandbox::User=root'],
  ];
}

let listsUpdated = false;

function updatePrivateLists(): void {
  if (listsUpdated) return;
  listsUpdated = true;
  console.log('Updating the lists of packages (in .tools/, not those of this machine)');
  mkdirSync(join(privateLists, 'lists', 'partial'), { recursive: true });
  mkdirSync(join(privateLists, 'cache', 'archives', 'partial'), { recursive: true });
  const result = apt('apt-get', ['-q', ...privateListOptions(), 'update']);
  if (result.status !== 0) {
    throw new SetupError(`Cannot update the lists of packages: ${result.stderr.trim()}`);
  }
}

function apt(
  program: string,
  arguments_: readonly string[],
  cwd = '/',
): { status: number | null; stderr: string } {
  const result = spawnSync(program, arguments_, { cwd, encoding: 'utf8', timeout: aptTimeoutMs });
  if (result.error !== undefined) {
    throw new SetupError(`Cannot run ${program}: ${result.error.message}`);
  }
  return { status: result.status, stderr: result.stderr };
}

function completeLibraries(tool: Tool): void {
  for (let round = 0; round < maxLibraryRounds; round += 1) {
    const missing = missingLibraries(tool);
    if (missing.length === 0) return;
    for (const library of missing) {
      console.log(`Downloading ${library} for ${tool.name}`);
      unpack(packagesOfLibrary(library));
    }
  }
  throw new SetupError(`Cannot find the shared libraries of ${tool.name}`);
}

function missingLibraries(tool: Tool): string[] {
  const path = findTool(tool.name);
  if (path?.startsWith(toolsDirectory) !== true) return [];
  const env = { ...process.env, LD_LIBRARY_PATH: libraryDirectories().join(':') };
  const { stdout } = spawnSync('ldd', [path], { env, encoding: 'utf8' });
  return [...stdout.matchAll(/^\s*(\S+) => not found$/gm)].map((match) => match[1]!);
}

/** Debian names a library's package after its soname, with a mark where time_t grew. */
function packagesOfLibrary(soname: string): string[] {
  const match = /^(.+)\.so\.(.+)$/.exec(soname);
  if (match === null) throw new SetupError(`Cannot tell which package has ${soname}`);
  const [, library, version] = match as unknown as [string, string, string];
  const base = library.toLowerCase().replaceAll('_', '-');
  const name = /\d$/.test(base) ? `${base}-${version}` : `${base}${version}`;
  return [name, `${name}t64`];
}

function printTable(): void {
  const rows = tools.map((tool) => {
    const path = findTool(tool.name);
    if (path === undefined) throw new SetupError(`Cannot find ${tool.name} after unpacking it`);
    return [tool.name, versionOf(tool, path), path];
  });
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const [name, version, path] of rows) {
    console.log(`${name!.padEnd(widths[0]!)}  ${version!.padEnd(widths[1]!)}  ${path!}`);
  }
}

function versionOf(tool: Tool, path: string): string {
  const options = { env: toolEnv(tool.name), encoding: 'utf8', timeout: 10_000 } as const;
  const result = spawnSync(path, tool.versionArguments, options);
  if (result.status !== 0) {
    throw new SetupError(`Cannot run ${path}: ${(result.stderr || 'no output').trim()}`);
  }
  const version = /v?\d+\.\d+[\w.~+-]*/.exec(`${result.stdout}${result.stderr}`);
  return version?.[0] ?? 'unknown';
}

try {
  main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
