import { execFile } from 'node:child_process';
import { access, constants, readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const VERSION_TIMEOUT_MS = 5000;
/** The bit of CAP_SYS_ADMIN, without which nothing can be mounted: capabilities(7). */
const SYS_ADMIN = 1n << 21n;

/** The programs of real nodes, and what version they are. */
export interface ContainerdPrograms {
  readonly containerd: string;
  readonly ctr: string;
  readonly version: string;
}

/**
 * Looks for containerd on the PATH and in `.tools/` of the working directory.
 *
 * @returns why real containerd daemons cannot run here, where they cannot
 */
export async function findContainerd(): Promise<ContainerdPrograms | { readonly reason: string }> {
  if (process.getuid?.() !== 0) return { reason: 'this is not root' };
  if (!(await canMount())) return { reason: 'this root may not mount' };
  const [containerd, ctr] = await Promise.all([find('containerd'), find('ctr')]);
  if (containerd === undefined || ctr === undefined) {
    return { reason: 'there is no containerd here' };
  }
  try {
    const { stdout } = await run(containerd, ['--version'], { timeout: VERSION_TIMEOUT_MS });
    return { containerd, ctr, version: stdout.trim().split(/\s+/)[2] ?? 'unknown' };
  } catch {
    return { reason: 'containerd does not run here' };
  }
}

async function canMount(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8').catch(() => '');
  const effective = /^CapEff:\s*(?<hex>[0-9a-f]+)$/m.exec(status)?.groups?.['hex'];
  return effective !== undefined && (BigInt(`0x${effective}`) & SYS_ADMIN) !== 0n;
}

async function find(name: string): Promise<string | undefined> {
  const directories = [
    ...(process.env['PATH'] ?? '').split(delimiter).filter((directory) => directory !== ''),
    join(process.cwd(), '.tools', 'usr', 'bin'),
  ];
  for (const directory of directories) {
    const path = join(directory, name);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}
