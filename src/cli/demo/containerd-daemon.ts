import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { Child } from './child.ts';
import type { Workspace } from './workspace.ts';

const run = promisify(execFile);
const PULL_TIMEOUT_MS = 60_000;
const READY_TIMEOUT_MS = 20_000;

/** The programs of real nodes, and what version they are. */
export interface ContainerdPrograms {
  readonly containerd: string;
  readonly ctr: string;
  readonly version: string;
}

/** @returns undefined where real containerd daemons cannot run: no root, or no containerd */
export async function findContainerd(): Promise<ContainerdPrograms | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const directories = [
    ...(process.env['PATH'] ?? '').split(delimiter),
    join(process.cwd(), '.tools', 'usr', 'bin'),
  ];
  const find = async (name: string): Promise<string | undefined> => {
    for (const directory of directories) {
      const path = join(directory, name);
      const isThere = await access(path, constants.X_OK).then(
        () => true,
        () => false,
      );
      if (isThere && directory !== '') return path;
    }
    return undefined;
  };
  const [containerd, ctr] = await Promise.all([find('containerd'), find('ctr')]);
  if (containerd === undefined || ctr === undefined) return undefined;
  try {
    const { stdout } = await run(containerd, ['--version'], { timeout: 5000 });
    return { containerd, ctr, version: stdout.trim().split(/\s+/)[2] ?? 'unknown' };
  } catch {
    return undefined;
  }
}

/** A containerd daemon of the demo's own: nothing of it is shared with the machine's. */
export class ContainerdDaemon {
  readonly socket: string;
  readonly #programs: ContainerdPrograms;
  readonly #hostsDirectory: string;
  readonly #contentDirectory: string;

  private constructor(home: string, programs: ContainerdPrograms) {
    this.#programs = programs;
    this.socket = join(home, 'c.sock');
    this.#hostsDirectory = join(home, 'certs.d');
    this.#contentDirectory = join(home, 'root', 'io.containerd.content.v1.content', 'blobs');
  }

  /**
   * @param options.hosts contents of hosts.toml files by directory, such as "_default"
   */
  static async start(
    workspace: Workspace,
    options: {
      readonly name: string;
      readonly programs: ContainerdPrograms;
      readonly hosts: Readonly<Record<string, string>>;
    },
  ): Promise<ContainerdDaemon> {
    const home = join(workspace.directory, options.name);
    const daemon = new ContainerdDaemon(home, options.programs);
    for (const [directory, content] of Object.entries(options.hosts)) {
      await mkdir(join(daemon.#hostsDirectory, directory), { recursive: true });
      await writeFile(join(daemon.#hostsDirectory, directory, 'hosts.toml'), content);
    }
    const config = join(home, 'containerd.toml');
    await writeFile(config, configOf(home, daemon.socket));
    const child = await Child.start(workspace, `containerd ${options.name}`, {
      command: options.programs.containerd,
      arguments: ['--config', config],
    });
    await child.waitFor(
      'its socket',
      () => child.lines.find((line) => line.includes('containerd successfully booted')),
      READY_TIMEOUT_MS,
    );
    return daemon;
  }

  /**
   * `ctr image pull`, unpacking left out: the demo is about bytes.
   *
   * @throws with containerd's own words
   */
  async pull(reference: string): Promise<void> {
    const { ctr } = this.#programs;
    const common = ['--address', this.socket, '--namespace', 'k8s.io'];
    const fetch = ['content', 'fetch', '--hosts-dir', this.#hostsDirectory, reference];
    try {
      await run(ctr, [...common, ...fetch], { timeout: PULL_TIMEOUT_MS });
      const image = ['images', 'ls', '-q', `name==${reference}`];
      await run(ctr, [...common, ...image], { timeout: PULL_TIMEOUT_MS });
    } catch (error) {
      const { stderr } = error as { stderr?: string };
      const words = stderr?.trim().split('\n').at(-1) ?? String(error);
      throw new Error(words, { cause: error });
    }
  }

  /** Recomputes the digest of a blob from its file. */
  async hasRightBytes(digest: string): Promise<boolean> {
    const hash = createHash('sha256');
    try {
      const file = createReadStream(join(this.#contentDirectory, digest.replace(':', '/')));
      for await (const chunk of file) hash.update(chunk as Buffer);
    } catch {
      return false;
    }
    return `sha256:${hash.digest('hex')}` === digest;
  }
}

function configOf(home: string, socket: string): string {
  const text = JSON.stringify;
  return `version = 2
root = ${text(join(home, 'root'))}
state = ${text(join(home, 'state'))}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = ${text(socket)}
[ttrpc]
address = ${text(join(home, 't.sock'))}
[plugins."io.containerd.internal.v1.opt"]
path = ${text(join(home, 'opt'))}
`;
}
