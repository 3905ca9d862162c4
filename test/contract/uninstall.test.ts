import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runUninstallState } from '../../src/cli/uninstall.ts';
import { repositoryRoot } from '../support/tools.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('uninstall');
const program = join(repositoryRoot, 'src', 'main.ts');

test('uninstall state empties a directory, and leaves the directory, which may be a mount', async () => {
  const directory = join(scope().directory, 'state');
  await mkdir(join(directory, 'hosts', 'originals'), { recursive: true });
  await writeFile(join(directory, 'observations.db'), 'x');
  const said: string[] = [];
  const signal = AbortSignal.timeout(20_000);
  await runUninstallState(
    directory,
    { signal },
    { writeOut: (text) => said.push(text), writeError: (text) => said.push(text) },
  );
  expect(await readdir(directory)).toEqual([]);
  expect(said.join('')).toContain('Deleted 2 files or directories');
});

test('uninstall hold runs until it is told to stop, and ends well', async () => {
  const child = spawn(process.execPath, [program, 'uninstall', 'hold']);
  scope().defer(() => void child.kill('SIGKILL'));
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  expect(said.toString()).toBe('Nothing is left to do on this node\n');
  child.kill('SIGTERM');
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test('uninstall await says that it is for Pods, where it is not in one', async () => {
  const arguments_ = ['uninstall', 'await', '--namespace', 'ns', '--daemon-set', 'restore'];
  const env = { ...process.env, KUBERNETES_SERVICE_HOST: '' };
  const limits = ['--timeout', '1ms'];
  const child = spawn(process.execPath, [program, ...arguments_, ...limits], { env });
  const said: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => said.push(chunk));
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(Buffer.concat(said).toString()).toContain('KUBERNETES_SERVICE_HOST is not set');
});
