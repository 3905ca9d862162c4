import { execFile } from 'node:child_process';
import { appendFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const scope = suiteScope('full-disk-hosts');
const run = promisify(execFile);
const mirror = 'server = "https://a.test"\n[host."https://m.test"]\n';

/** Writes until not one more byte fits. */
async function fill(disk: string): Promise<void> {
  for (let size = 1024 * 1024; size >= 1; size = Math.floor(size / 2)) {
    for (let isWritten = true; isWritten;) {
      isWritten = await appendFile(join(disk, 'filler'), Buffer.alloc(size, 7)).then(
        () => true,
        () => false,
      );
    }
  }
}

test.each([
  // The file of a lock has no bytes, the record of what is done has some.
  ['full', fill, 'write', 'hosts/record.json'],
  ['read-only', (disk: string) => run('mount', ['-o', 'remount,ro', disk]), 'lock', 'hosts.lock'],
] as const)(
  'a new pod on a wired node starts although the disk of the state is %s, and wires nothing new',
  async (what, spoil, verb, file) => {
    const disk = await mountSmallDisk(scope(), { name: what, sizeBytes: 4 * 1024 * 1024 });
    const root = join(scope().directory, `${what}-certs.d`);
    const upstreams = join(scope().directory, `${what}-upstreams`);
    await mkdir(upstreams);
    await mkdir(join(root, 'a.test'), { recursive: true });
    await writeFile(join(root, 'a.test', 'hosts.toml'), mirror);
    const hosts = () =>
      run(process.execPath, [
        ...[join(repositoryRoot, 'src/main.ts'), 'hosts', 'write', '--no-wait'],
        ...['--containerd-version', '2.2.0', '--config-path', root],
        ...['--node-state-directory', join(disk, 'state')],
        ...['--registry-hosts-file', join(upstreams, 'hosts.json')],
      ]);
    await hosts();
    const told = await readFile(join(upstreams, 'hosts.json'), 'utf8');
    const wired = await readFile(join(root, 'a.test', 'hosts.toml'), 'utf8');
    expect(told).toContain('https://m.test');

    // The volume of the pod is new, the node is as it was.
    await rm(upstreams, { recursive: true });
    await mkdir(upstreams);
    await spoil(disk);
    await hosts();
    expect(await readFile(join(upstreams, 'hosts.json'), 'utf8')).toBe(told);
    expect(await readFile(join(root, 'a.test', 'hosts.toml'), 'utf8')).toBe(wired);

    // What has to be remembered is not done where it cannot be.
    const other = join(root, 'b.test', 'hosts.toml');
    await mkdir(join(root, 'b.test'));
    await writeFile(other, mirror);
    await expect(hosts()).rejects.toThrow(`salvor: Cannot ${verb} ${join(disk, 'state', file)}: `);
    expect(await readFile(other, 'utf8')).toBe(mirror);
    const left = await readdir(join(disk, 'state', 'hosts'));
    expect(left.toSorted()).toEqual(['originals', 'record.json']);
  },
);
