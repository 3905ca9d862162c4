import { execFile } from 'node:child_process';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { renderContainerdConfig, renderHostsToml, type Mirror } from './containerd-config.ts';
import {
  containerdProgram,
  packagedContainerd,
  type ContainerdVersion,
} from './containerd-version.ts';
import { CriClient, type CriAuth, type CriImage } from './cri-client.ts';
import { sha256 } from './layer.ts';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';
import { toolEnv } from './tools.ts';
import { waitFor } from './wait.ts';

const run = promisify(execFile);
const pullTimeoutMs = 110_000;
const callTimeoutMs = 15_000;
const readyTimeoutMs = 20_000;
const maxOutputBytes = 64 * 1024 * 1024;

/** How a node is set up. */
export interface ContainerdOptions {
  readonly name: string;
  /** The packaged one unless told. */
  readonly version?: ContainerdVersion;
  /** Asked in this order before the image's own registry. */
  readonly mirrors?: readonly Mirror[];
  /** Replaces the generated `_default/hosts.toml`. */
  readonly hostsToml?: string;
  /** Asked after the mirrors instead of the image's own registry. */
  readonly upstreamServer?: string;
  readonly discardUnpackedLayers?: boolean;
  /** What its root directory is in, for instance a disk of its own; the scope's unless told. */
  readonly rootParent?: string;
  /** Instead of one in the scope's directory for sockets; its directory must be there. */
  readonly socketPath?: string;
  /** Put in front of the command, for instance to be on another network. */
  readonly launcher?: readonly string[];
}

/** A download that is not complete. */
export interface Ingest {
  /** Such as "k8s.io/7/layer-sha256:…". */
  readonly ref: string;
  readonly directory: string;
}

/** A line of the daemon's log. */
export interface ContainerdLogEntry {
  readonly level: string;
  readonly msg: string;
  readonly error?: string;
}

/**
 * A real containerd daemon that shares nothing with another one, configured as on a Kubernetes
 * node. Images on a registry at 127.0.0.1:port are pulled by plain http, as 1.6 does by itself.
 */
export class ContainerdNode {
  readonly name: string;
  readonly socketPath: string;
  readonly root: string;
  /** The CRI config_path: contains `_default/hosts.toml`. */
  readonly certsDirectory: string;
  readonly snapshotter: string;
  readonly version: ContainerdVersion;
  readonly #scope: TestScope;
  readonly #configPath: string;
  readonly #cri: CriClient;
  readonly #launcher: readonly string[];
  #program: Program | undefined;
  #readyMark = 0;

  private constructor(scope: TestScope, options: ContainerdOptions, snapshotter: string) {
    const { name, version = packagedContainerd, rootParent = scope.directory } = options;
    this.#launcher = options.launcher ?? [];
    this.#scope = scope;
    this.name = name;
    this.version = version;
    this.snapshotter = snapshotter;
    this.root = join(rootParent, name, 'root');
    this.certsDirectory = join(scope.directory, name, 'certs.d');
    this.socketPath = options.socketPath ?? join(scope.socketDirectory, `${name}.sock`);
    this.#configPath = join(scope.directory, name, 'config.toml');
    this.#cri = new CriClient(this.socketPath);
    scope.defer(() => this.#cri.close());
  }

  /** Starts a daemon that ends with the scope. Needs root. */
  static async start(scope: TestScope, options: ContainerdOptions): Promise<ContainerdNode> {
    const node = new ContainerdNode(scope, options, await pickSnapshotter(scope.directory));
    const home = join(scope.directory, options.name);
    await mkdir(node.root, { recursive: true });
    await mkdir(join(home, 'cni'), { recursive: true });
    await node.writeHosts(
      options.hostsToml ??
        renderHostsToml(
          options.mirrors ?? [],
          options.upstreamServer === undefined ? {} : { server: options.upstreamServer },
        ),
    );
    const config = renderContainerdConfig({
      version: node.version,
      root: node.root,
      state: join(home, 'state'),
      socket: node.socketPath,
      ttrpcSocket: join(scope.socketDirectory, `${options.name}.ttrpc`),
      certsDirectory: node.certsDirectory,
      cniDirectory: join(home, 'cni'),
      snapshotter: node.snapshotter,
      discardUnpackedLayers: options.discardUnpackedLayers ?? false,
    });
    await writeFile(node.#configPath, config);
    await node.#launch();
    return node;
  }

  get pid(): number {
    return this.program.pid;
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error(`Cannot use ${this.name} before its start`);
    return this.#program;
  }

  /** Directory with `blobs/` and `ingest/`. */
  get contentPath(): string {
    return join(this.root, 'io.containerd.content.v1.content');
  }

  /** Replaces `_default/hosts.toml`; an empty text removes it. Takes effect with the next pull. */
  async writeHosts(hostsToml: string): Promise<void> {
    const directory = join(this.certsDirectory, '_default');
    // 1.6 takes a file without hosts for a mistake, so there must be none.
    if (hostsToml.trim() === '') return rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'hosts.toml'), hostsToml);
  }

  /** The release in the daemon's own words. */
  async runtimeVersion(): Promise<string> {
    return this.#cri.version({ timeoutMs: callTimeoutMs });
  }

  /**
   * One CRI PullImage call, as kubelet makes it.
   *
   * @returns the image's id
   * @throws with containerd's own words
   */
  async pull(
    ref: string,
    options: { readonly auth?: CriAuth; readonly timeoutMs?: number } = {},
  ): Promise<string> {
    return this.#cri.pullImage(ref, { timeoutMs: pullTimeoutMs, ...options });
  }

  /** Removes an image by CRI, with all its names. */
  async removeImage(ref: string): Promise<void> {
    await this.#cri.removeImage(ref, { timeoutMs: callTimeoutMs });
  }

  async imageStatus(ref: string): Promise<CriImage | undefined> {
    return this.#cri.imageStatus(ref, { timeoutMs: callTimeoutMs });
  }

  async listImages(): Promise<readonly CriImage[]> {
    return this.#cri.listImages({ timeoutMs: callTimeoutMs });
  }

  /**
   * Runs `ctr` in the namespace of Kubernetes.
   *
   * @returns its standard output
   * @throws when it fails, with what it wrote
   */
  async ctr(
    arguments_: readonly string[],
    options: { readonly namespace?: string; readonly timeoutMs?: number } = {},
  ): Promise<string> {
    const common = ['--address', this.socketPath, '--namespace', options.namespace ?? 'k8s.io'];
    const { stdout } = await run(
      containerdProgram(this.version, 'ctr'),
      [...common, ...arguments_],
      {
        env: toolEnv('ctr'),
        timeout: options.timeoutMs ?? pullTimeoutMs,
        maxBuffer: maxOutputBytes,
      },
    );
    return stdout;
  }

  /**
   * `ctr image pull` with a directory of hosts.toml files, or directly from the registry.
   *
   * @param options.hostsDirectory the node's own unless told; null: no mirrors
   */
  async ctrPull(
    ref: string,
    options: {
      readonly hostsDirectory?: string | null;
      readonly plainHttp?: boolean;
      readonly timeoutMs?: number;
    } = {},
  ): Promise<string> {
    const { hostsDirectory = this.certsDirectory, timeoutMs = pullTimeoutMs } = options;
    const flags = [
      ...(hostsDirectory === null ? [] : ['--hosts-dir', hostsDirectory]),
      ...(options.plainHttp === true ? ['--plain-http'] : []),
    ];
    const snapshotter = ['--snapshotter', this.snapshotter];
    return this.ctr(['images', 'pull', ...flags, ...snapshotter, ref], { timeoutMs });
  }

  /** Where a blob is, whether it is there or not. */
  blobPath(digest: string): string {
    return join(this.contentPath, 'blobs', digest.replace(':', '/'));
  }

  /** Digests of the complete blobs on disk. */
  async blobs(): Promise<string[]> {
    const names = await entries(join(this.contentPath, 'blobs', 'sha256'));
    return names.map((name) => `sha256:${name}`);
  }

  /** @throws unless the blob is on disk and has the digest that its name says */
  async verifyBlob(digest: string): Promise<void> {
    const found = sha256(await readFile(this.blobPath(digest)));
    if (found !== digest) throw new Error(`Cannot trust ${digest} on ${this.name}: it is ${found}`);
  }

  /** Downloads that are not complete. */
  async ingests(): Promise<Ingest[]> {
    const parent = join(this.contentPath, 'ingest');
    const found = await Promise.all(
      (await entries(parent)).map(async (name) => {
        const directory = join(parent, name);
        // It may be complete, and so gone, by now.
        const ref = await readFile(join(directory, 'ref'), 'utf8').catch(() => undefined);
        return ref === undefined ? [] : [{ ref, directory }];
      }),
    );
    return found.flat();
  }

  /**
   * Whether every layer of an image is unpacked: all its snapshots are committed.
   *
   * @throws when there is no such image
   */
  async isUnpacked(ref: string): Promise<boolean> {
    const image = await this.imageStatus(ref);
    if (image === undefined) throw new Error(`Cannot find ${ref} on ${this.name}`);
    const config = JSON.parse(await readFile(this.blobPath(image.id), 'utf8')) as {
      rootfs: { diff_ids: string[] };
    };
    const list = await this.ctr(['snapshots', '--snapshotter', this.snapshotter, 'list']);
    const committed = new Set(
      list
        .split('\n')
        .filter((line) => /\sCommitted\s*$/.test(line))
        .map((line) => line.split(/\s+/)[0]),
    );
    return chainIds(config.rootfs.diff_ids).every((id) => committed.has(id));
  }

  /** Warnings and errors of the daemon's log since it was ready. */
  warnings(): readonly ContainerdLogEntry[] {
    return this.program
      .lines(this.#readyMark)
      .map((line) => parseEntry(line.text))
      .filter((entry) => entry.level !== 'info' && entry.level !== 'debug');
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    await this.program.kill(signal);
  }

  /** Stops the daemon, if it runs, and starts it again with the same files. */
  async restart(): Promise<void> {
    await this.program.stop();
    await this.#launch();
  }

  async #launch(): Promise<void> {
    const command = [containerdProgram(this.version, 'containerd'), '--config', this.#configPath];
    const [first, ...others] = [...this.#launcher, ...command];
    this.#program = await Program.start(this.#scope, {
      name: this.name,
      command: first!,
      arguments: others,
      env: toolEnv('containerd'),
    });
    await this.#program.waitForSocket(this.socketPath, { timeoutMs: readyTimeoutMs });
    await waitFor(() => this.#isReady(), {
      what: `an answer of ${this.name}`,
      timeoutMs: readyTimeoutMs,
    });
    this.#readyMark = this.#program.lineCount;
  }

  async #isReady(): Promise<boolean> {
    return this.#cri.version({ timeoutMs: 1000 }).then(
      () => true,
      () => false,
    );
  }
}

/** Starts a containerd daemon that ends with the scope. Needs root. */
export async function startContainerd(
  scope: TestScope,
  options: ContainerdOptions,
): Promise<ContainerdNode> {
  return ContainerdNode.start(scope, options);
}

let snapshotterOfThisMachine: Promise<string> | undefined;

/** An overlay cannot lie on an overlay, which is what a container often has as its disk. */
async function pickSnapshotter(directory: string): Promise<string> {
  snapshotterOfThisMachine ??= probeOverlay(directory);
  return snapshotterOfThisMachine;
}

async function probeOverlay(directory: string): Promise<string> {
  const probe = join(directory, 'overlay-probe');
  const [lower, upper, work, target] = ['lower', 'upper', 'work', 'target'].map((name) =>
    join(probe, name),
  ) as [string, string, string, string];
  for (const path of [lower, upper, work, target]) await mkdir(path, { recursive: true });
  const layers = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  try {
    await run('mount', ['-t', 'overlay', 'overlay', '-o', layers, target]);
    await run('umount', [target]);
    return 'overlayfs';
  } catch {
    return 'native';
  } finally {
    await rm(probe, { recursive: true, force: true });
  }
}

/** OCI image specification, "Layer ChainID". */
function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : sha256(`${parent} ${diffId}`));
  }
  return chain;
}

function parseEntry(line: string): ContainerdLogEntry {
  try {
    return JSON.parse(line) as ContainerdLogEntry;
  } catch {
    return { level: 'error', msg: line };
  }
}

async function entries(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}
