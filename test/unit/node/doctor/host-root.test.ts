import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { asOnNode, hasRoot, procSeenFrom, seenAt } from '../../../../src/node/doctor/host-root.ts';
import { suiteScope } from '../../../support/test-scope.ts';

const scope = suiteScope('host-root');

test('seenAt looks where a container mounts it, and below the root of the node else', async () => {
  const { directory: root } = scope();
  const mounted = join(root, 'mounted');
  await writeFile(mounted, '');
  expect(await seenAt(mounted, '/host')).toBe(mounted);
  expect(await seenAt('/no/such/socket', root)).toBe(join(root, 'no/such/socket'));
  expect(await seenAt('/no/such/socket', '/')).toBe('/no/such/socket');
  expect(await seenAt(join(root, 'given/with/it'), root)).toBe(join(root, 'given/with/it'));
  // A setting that is not set.
  expect(await seenAt('', root)).toBe('');
});

test('asOnNode takes the root away where it was given with it', () => {
  expect(asOnNode('/host/run/a.sock', '/host')).toBe('/run/a.sock');
  expect(asOnNode('/run/a.sock', '/host')).toBe('/run/a.sock');
  expect(asOnNode('/hosts/a.sock', '/host')).toBe('/hosts/a.sock');
  expect(asOnNode('/run/a.sock', '/')).toBe('/run/a.sock');
});

test('procSeenFrom prefers the processes of the node', async () => {
  const root = join(scope().directory, 'node');
  expect(await procSeenFrom(root)).toBe('/proc');
  await mkdir(join(root, 'proc', '1'), { recursive: true });
  expect(await procSeenFrom(root)).toBe(join(root, 'proc'));
});

test('hasRoot tells whether a process sees the same files', async () => {
  expect(await hasRoot(process.pid, '/')).toBe(true);
  expect(await hasRoot(process.pid, scope().directory)).toBe(false);
  expect(await hasRoot(2 ** 22 + 1, '/')).toBe(false);
});
