import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';

/** A program that tests start and that is not made by npm. */
export interface Tool {
  readonly name: string;
  /** The Debian package that has it. */
  readonly packageName: string;
  readonly versionArguments: readonly string[];
}

/** Every program that the integration tests and benches need. */
export const tools: readonly Tool[] = [
  { name: 'containerd', packageName: 'containerd', versionArguments: ['--version'] },
  { name: 'ctr', packageName: 'containerd', versionArguments: ['--version'] },
  { name: 'runc', packageName: 'runc', versionArguments: ['--version'] },
  { name: 'docker-registry', packageName: 'docker-registry', versionArguments: ['--version'] },
  { name: 'skopeo', packageName: 'skopeo', versionArguments: ['--version'] },
  { name: 'nginx', packageName: 'nginx', versionArguments: ['-v'] },
];

/** The repository's own directory. */
export const repositoryRoot = resolve(import.meta.dirname, '..', '..');

/** Where `npm run test:setup` unpacks what the machine lacks. */
export const toolsDirectory = join(repositoryRoot, '.tools');

/**
 * Finds a program on the PATH, in the usual system directories or in `.tools/`.
 *
 * @throws when it is nowhere, with the command that brings it
 */
export function toolPath(name: string): string {
  const found = findTool(name);
  if (found !== undefined) return found;
  const packageName = tools.find((tool) => tool.name === name)?.packageName ?? name;
  throw new Error(
    `Cannot find ${name}: run \`npm run test:setup\`, or \`apt-get install ${packageName}\``,
  );
}

/** The same as {@link toolPath}, with undefined for a program that is nowhere. */
export function findTool(name: string): string | undefined {
  const directories = [
    ...(process.env['PATH'] ?? '').split(delimiter).filter((directory) => directory !== ''),
    '/usr/local/sbin',
    '/usr/sbin',
    '/sbin',
    ...['usr/bin', 'usr/sbin', 'bin', 'sbin'].map((part) => join(toolsDirectory, part)),
  ];
  return directories.map((directory) => join(directory, name)).find(isExecutable);
}

/**
 * The environment in which a program runs: its shared libraries are found in `.tools/` too when it
 * was unpacked there, and so are the programs that it starts itself.
 */
export function toolEnv(name: string): NodeJS.ProcessEnv {
  const path = [process.env['PATH'], join(toolsDirectory, 'usr/bin'), '/usr/sbin', '/sbin'];
  const env = { ...process.env, PATH: path.filter(Boolean).join(delimiter) };
  if (!toolPath(name).startsWith(toolsDirectory)) return env;
  return { ...env, LD_LIBRARY_PATH: libraryDirectories().join(delimiter) };
}

/** The directories in `.tools/` that hold shared libraries. */
export function libraryDirectories(): string[] {
  return ['usr/lib', 'lib']
    .map((part) => join(toolsDirectory, part))
    .filter((directory) => existsSync(directory))
    .flatMap((directory) => [
      directory,
      ...readdirSync(directory)
        .filter((entry) => entry.includes('-linux-'))
        .map((entry) => join(directory, entry)),
    ]);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
