import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { toolPath, toolsDirectory } from './tools.ts';

/** A containerd release that tests run against. */
export interface ContainerdVersion {
  /** "1.6": whatever `npm run test:setup` brings; otherwise a release's first two numbers. */
  readonly name: string;
  /** The exact release that is built; undefined: a package of the distribution is used. */
  readonly release: string | undefined;
  /** The Go module of a release that is built. */
  readonly module: string;
  /** The `version` of its config.toml. */
  readonly configVersion: 2 | 3 | 4;
  /** Who pulls with the settings of the tests: CRI's own client or the transfer service. */
  readonly pullPath: 'client' | 'transfer service';
  /**
   * Size in bytes of the ranges in which layers are fetched in parallel; undefined: off, which is
   * containerd's default.
   */
  readonly rangeBytes?: number;
}

const firstModule = 'github.com/containerd/containerd';
const secondModule = `${firstModule}/v2`;

/** Every version that the support table has, oldest first. */
export const containerdVersions: readonly ContainerdVersion[] = [
  {
    name: '1.6',
    release: undefined,
    module: firstModule,
    configVersion: 2,
    pullPath: 'client',
  },
  {
    name: '1.7',
    release: '1.7.34',
    module: firstModule,
    configVersion: 2,
    pullPath: 'client',
  },
  {
    name: '2.1',
    release: '2.1.9',
    module: secondModule,
    configVersion: 3,
    pullPath: 'transfer service',
  },
  {
    name: '2.2',
    release: '2.2.7',
    module: secondModule,
    configVersion: 3,
    pullPath: 'transfer service',
    rangeBytes: 1024 * 1024,
  },
  {
    name: '2.3',
    release: '2.3.4',
    module: secondModule,
    configVersion: 4,
    pullPath: 'transfer service',
  },
];

/** The version that the machine or `npm run test:setup` has. */
export const packagedContainerd: ContainerdVersion = containerdVersions[0]!;

/** @throws when there is no such version */
export function containerdVersion(name: string): ContainerdVersion {
  const found = containerdVersions.find((version) => version.name === name);
  if (found !== undefined) return found;
  const known = containerdVersions.map((version) => version.name).join(', ');
  throw new Error(`Cannot use containerd ${name}: there are ${known}`);
}

/** Where a release's programs are once they are built. */
export function binDirectory(release: string): string {
  return join(toolsDirectory, `containerd-${release}`, 'bin');
}

/**
 * Finds a program of a containerd version.
 *
 * @throws when it is not there, with the command that brings it
 */
export function containerdProgram(version: ContainerdVersion, name: 'containerd' | 'ctr'): string {
  if (version.release === undefined) return toolPath(name);
  const path = join(binDirectory(version.release), name);
  if (existsSync(path)) return path;
  throw new Error(`Cannot find ${name} ${version.release}: run \`npm run test:containerd\``);
}
