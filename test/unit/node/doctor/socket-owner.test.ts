import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { findSocketOwner, flagIn } from '../../../../src/node/doctor/socket-owner.ts';
import { makeSocketDirectory, removeDirectory } from '../../../support/work-dir.ts';

test('findSocketOwner finds this process behind a socket of its own', async () => {
  const directory = await makeSocketDirectory();
  onTestFinished(() => removeDirectory(directory));
  const path = join(directory, 'a.sock');
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  onTestFinished(() => void server.close());
  const owner = await findSocketOwner(path);
  expect(owner?.pid).toBe(process.pid);
  expect(owner?.arguments.length).toBeGreaterThan(0);
  expect(owner?.environment['PATH']).toBe(process.env['PATH']);
  expect(await findSocketOwner(join(directory, 'nobody.sock'))).toBeUndefined();
});

test('flagIn reads flags in each of their forms', () => {
  const names = ['--config', '-c'];
  expect(flagIn(['containerd', '--config', '/a'], names)).toBe('/a');
  expect(flagIn(['containerd', '-c=/b'], names)).toBe('/b');
  expect(flagIn(['containerd', '--root', '/c'], names)).toBeUndefined();
});
