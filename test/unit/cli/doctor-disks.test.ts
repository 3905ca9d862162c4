import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { gatherDisks } from '../../../src/cli/doctor-disks.ts';
import { loadConfig } from '../../../src/config/load.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-doctor-disks-'));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

async function gather(stateDirectory: string) {
  const config = await loadConfig({
    command: 'doctor',
    flags: {
      'node.stateDirectory': stateDirectory,
      'agent.store.kind': 'directory',
      'agent.store.directory.path': join(directory, 'not', 'yet'),
    },
    env: {},
  });
  const signal = AbortSignal.timeout(5000);
  return gatherDisks({ config, hostRoot: '/', signal }, undefined);
}

test('gatherDisks looks at the disk that a missing directory will be on, and makes none', async () => {
  const statePath = join(directory, 'of', 'state');
  const { all, stateFailure } = await gather(statePath);
  expect(stateFailure).toBe('');
  expect(all.map(({ of, path }) => [of, path])).toEqual([
    ['content', join(directory, 'not', 'yet')],
    ['state', statePath],
  ]);
  for (const { availableBytes } of all) expect(availableBytes).toBeGreaterThan(0);
  expect(await readdir(directory)).toEqual([]);
});

test.each([
  ['what is no directory', () => join(directory, 'file', 'state'), 'ENOTDIR'],
  ['what is read-only', () => '/proc/sys/kernel/salvor/state', 'EACCES|EROFS|EPERM'],
])('gatherDisks says why there can be no state below %s', async (_, path, code) => {
  await writeFile(join(directory, 'file'), '');
  const { all, stateFailure } = await gather(path());
  expect(stateFailure).toMatch(new RegExp(`^(${code}): `));
  expect(all.map(({ of }) => of)).not.toContain('state');
});
