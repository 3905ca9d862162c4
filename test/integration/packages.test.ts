import { execFile } from 'node:child_process';
import { access, mkdir, readFile, readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { buildRootFilesystem, sizeBytes } from '../../scripts/root-filesystem.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import { buildProgram } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const run = promisify(execFile);
const scope = suiteScope('packages');
const mebibyte = 1024 ** 2;
const { version } = JSON.parse(await readFile(join(repositoryRoot, 'package.json'), 'utf8')) as {
  version: string;
};

let rootDirectory: string;

beforeAll(async () => {
  const { main } = await buildProgram();
  rootDirectory = join(scope().directory, 'rootfs');
  buildRootFilesystem({ directory: rootDirectory, program: join(main, '..') });
});

/** A command on the root filesystem, which is read-only, as the image's user. */
function inImage(command: readonly string[]): readonly string[] {
  const script = [
    'mount --bind "$0" "$0"',
    'mount -o remount,bind,ro "$0"',
    'exec chroot --userspec=65532:65532 "$0" "$@"',
  ].join(' && ');
  return ['unshare', '--mount', '--', 'sh', '-c', script, rootDirectory, ...command];
}

describe('the root filesystem of the image', () => {
  test('has the program on its path, and the version of package.json', async () => {
    const [command, ...others] = inImage(['/usr/local/bin/salvor', '--version']);
    expect((await run(command!, others)).stdout).toBe(`${version}\n`);
  });

  test('starts a registry as an ordinary user on a read-only root', async () => {
    const port = await freePort();
    const settings = [
      `--registry-listen=127.0.0.1:${port}`,
      '--registry-admin=',
      '--registry-agent-socket=',
    ];
    const [command, ...others] = inImage(['/usr/local/bin/salvor', 'registry', ...settings]);
    const program = await Program.start(scope(), {
      name: 'image-registry',
      command: command!,
      arguments: others,
      env: {},
    });
    await program.waitForLine(/"msg":"ready"/, { timeoutMs: 20_000 });
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`);
    expect(answer.status).toBe(200);
    await program.stop();
    expect(await program.exited).toEqual({ code: 0, signal: null });
  });

  test('has neither a shell, nor sources, nor more than 180 MiB', async () => {
    await expect(access(join(rootDirectory, 'bin/sh'))).rejects.toThrow();
    const files = await readdir(rootDirectory, { recursive: true });
    expect(files.filter((file) => /\.(map|ts)$/.test(file))).toEqual([]);
    expect(files).not.toContain('opt/salvor/node_modules/vitest');
    expect(sizeBytes(rootDirectory)).toBeLessThan(180 * mebibyte);
  });

  test('has its files where the Dockerfile has them', async () => {
    const text = await readFile(join(repositoryRoot, 'Dockerfile'), 'utf8');
    const [, last] = text.split('FROM ${BASE_IMAGE}');
    const entry = /ENTRYPOINT (\[.*\])/.exec(last!)?.[1];
    for (const path of JSON.parse(entry!) as string[]) await access(join(rootDirectory, path));
    expect(last).toContain('USER 65532:65532');
    for (const [, from, to] of last!.matchAll(/^COPY (?!--from)(\S+)(?: \S+)* (\S+)$/gm)) {
      await access(join(repositoryRoot, from!));
      await access(join(rootDirectory, to!));
    }
  });
});

describe('npm pack', () => {
  test('makes a package whose program works with its dependencies beside it', async () => {
    const { directory } = scope();
    const flags = ['pack', '--ignore-scripts', '--json', '--pack-destination', directory];
    const { stdout } = await run('npm', flags, { cwd: repositoryRoot });
    const [{ filename, files }] = JSON.parse(stdout) as [
      { filename: string; files: { path: string }[] },
    ];
    const tops = new Set(files.map(({ path }) => path.split('/')[0]));
    expect([...tops].sort()).toEqual(
      ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'package.json', 'packaging'].sort(),
    );
    expect(files.filter(({ path }) => path.endsWith('.map'))).toEqual([]);

    const installed = join(directory, 'npm', 'node_modules', 'salvor');
    await mkdir(installed, { recursive: true });
    await run('tar', ['-xf', join(directory, filename), '-C', installed, '--strip-components=1']);
    // What an installation would bring: the dependencies of the lock file, and no others.
    await symlink(join(rootDirectory, 'opt/salvor/node_modules'), join(installed, 'node_modules'));
    const { bin } = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8')) as {
      bin: { salvor: string };
    };
    const main = join(installed, bin.salvor);
    expect(await readFile(main, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/);
    const { stdout: help } = await run(process.execPath, [main, '--help']);
    expect(help).toContain('registry [options]');
    expect((await run(process.execPath, [main, '--version'])).stdout).toBe(`${version}\n`);
  });
});
