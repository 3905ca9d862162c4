import { execFile } from 'node:child_process';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestScope } from './test-scope.ts';

const run = promisify(execFile);
const commandTimeoutMs = 30_000;

/**
 * A file system of a size of its own: ext4 on a loop device, in the scope's directory. It is
 * unmounted, and the device given back, with the scope. Needs root.
 *
 * @returns where it is mounted
 * @throws with what to do where the machine has no loop devices
 */
export async function mountSmallDisk(
  scope: TestScope,
  { name, sizeBytes }: { readonly name: string; readonly sizeBytes: number },
): Promise<string> {
  const image = join(scope.directory, `${name}.img`);
  const target = join(scope.directory, name);
  const file = await open(image, 'w');
  await file.truncate(sizeBytes);
  await file.close();
  await mkdir(target, { recursive: true });
  await command('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
  try {
    // The device is given back by itself when the mount goes.
    await command('mount', ['-o', 'loop', image, target]);
  } catch (error) {
    throw new Error(
      'Cannot mount a loop device: these tests need root, the kernel module "loop" ' +
        '(modprobe loop) and, in a container, the devices /dev/loop-control and /dev/loop*',
      { cause: error },
    );
  }
  scope.defer(() => command('umount', ['-l', target]));
  return target;
}

async function command(program: string, arguments_: readonly string[]): Promise<void> {
  const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
  await run(program, arguments_, {
    timeout: commandTimeoutMs,
    env: { ...process.env, PATH: path },
  });
}
