import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Child } from './child.ts';
import type { ContainerdPrograms } from './containerd-programs.ts';
import type { Workspace } from './workspace.ts';

const run = promisify(execFile);
const PULL_TIMEOUT_MS = 600_000;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const NAMESPACE = 'k8s.io';
// An overlay cannot lie on an overlay, which is what a container has as its disk.
const SNAPSHOTTER = 'native';
/** Parts that would listen, or look, outside of the daemon's own directory. */
const DISABLED = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime',
  'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs',
];

/** A containerd daemon of the demo's own: nothing of it is shared with the machine's. */
export class ContainerdDaemon {
  readonly socket: string;
  /** Has "sha256/<hex>". */
  readonly blobsDirectory: string;
  readonly #programs: ContainerdPrograms;
  readonly #hostsDirectory: string;
  readonly #signal: AbortSignal;

  private constructor(home: string, programs: ContainerdPrograms, signal: AbortSignal) {
    this.#programs = programs;
    this.#signal = signal;
    this.socket = join(home, 'c.sock');
    this.#hostsDirectory = join(home, 'certs.d');
    this.blobsDirectory = join(home, 'root', 'io.containerd.content.v1.content', 'blobs');
  }

  /**
   * Starts a daemon that ends with the workspace.
   *
   * @param options.server where images are when no mirror gives them
   * @param options.mirror asked before the server
   */
  static async start(
    workspace: Workspace,
    options: {
      readonly name: string;
      readonly programs: ContainerdPrograms;
      readonly server: string;
      readonly mirror?: string;
    },
  ): Promise<ContainerdDaemon> {
    const { name, programs, server, mirror = server } = options;
    const home = join(workspace.directory, name);
    const daemon = new ContainerdDaemon(home, programs, workspace.signal);
    const hosts = join(daemon.#hostsDirectory, '_default');
    await mkdir(hosts, { recursive: true });
    await writeFile(join(hosts, 'hosts.toml'), hostsToml(server, mirror));
    const config = join(home, 'containerd.toml');
    await writeFile(config, configOf(home, daemon.socket));
    const child = await Child.start(workspace, `containerd of ${name}`, {
      command: programs.containerd,
      arguments: ['--config', config],
    });
    await child.waitFor('the start', (lines) =>
      lines.some((line) => line.includes('containerd successfully booted')),
    );
    return daemon;
  }

  /** `ctr image pull` as one types it. */
  pullCommand(reference: string): readonly string[] {
    // From 2.0 on ctr lets the daemon pull, which unpacks for the default snapshotter only.
    const isLocal = Number.parseInt(this.#programs.version.replace(/^v/, ''), 10) >= 2;
    return this.#command(
      ['images', 'pull', '--hosts-dir', this.#hostsDirectory, '--snapshotter', SNAPSHOTTER],
      [...(isLocal ? ['--local'] : []), reference],
    );
  }

  /** Removes an image, so that it can be pulled again. */
  removeCommand(reference: string): readonly string[] {
    return this.#command(['images', 'rm', '--sync', reference]);
  }

  /**
   * Pulls an image and unpacks it.
   *
   * @returns the digest of what the reference names
   * @throws with containerd's own words
   */
  async pull(reference: string): Promise<string> {
    await this.#run(this.pullCommand(reference));
    const list = await this.#run(this.#command(['images', 'ls', `name==${reference}`]));
    const digest = /sha256:[0-9a-f]{64}/.exec(list.replaceAll(reference, ''))?.[0];
    if (digest === undefined) throw new Error(`Cannot find ${reference} after its pull`);
    return digest;
  }

  async #run([command = '', ...rest]: readonly string[]): Promise<string> {
    try {
      const { stdout } = await run(command, rest, {
        timeout: PULL_TIMEOUT_MS,
        maxBuffer: MAX_OUTPUT_BYTES,
        signal: this.#signal,
      });
      return stdout;
    } catch (error) {
      const { stderr } = error as { stderr?: string };
      const words = stderr?.trim().split('\n').at(-1) ?? '';
      throw new Error(words === '' ? String(error) : words, { cause: error });
    }
  }

  #command(...parts: readonly (readonly string[])[]): readonly string[] {
    const common = ['--address', this.socket, '--namespace', NAMESPACE];
    return [this.#programs.ctr, ...common, ...parts.flat()];
  }
}

function hostsToml(server: string, mirror: string): string {
  return `server = ${JSON.stringify(server)}
[host.${JSON.stringify(mirror)}]
capabilities = ["pull", "resolve"]
`;
}

function configOf(home: string, socket: string): string {
  const text = JSON.stringify;
  return `version = 2
root = ${text(join(home, 'root'))}
state = ${text(join(home, 'state'))}
disabled_plugins = ${text(DISABLED)}
[grpc]
address = ${text(socket)}
[ttrpc]
address = ${text(join(home, 't.sock'))}
[plugins."io.containerd.internal.v1.opt"]
path = ${text(join(home, 'opt'))}
`;
}
