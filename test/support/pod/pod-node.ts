import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { nodePod, type Container, type KubeObject, type Rendered } from '../../chart/render.ts';
import type { RequestLine } from '../cluster.ts';
import { startContainerd, type ContainerdNode } from '../containerd-node.ts';
import { Program } from '../process.ts';
import type { TestScope } from '../test-scope.ts';
import { toolPath } from '../tools.ts';
import { waitFor } from '../wait.ts';
import type { NetworkHost } from './node-network.ts';
import { makeVolumes, type VolumeSources } from './pod-volumes.ts';
import { runtimeSpec } from './runtime-spec.ts';

const run = promisify(execFile);
const probeTimeoutMs = 30_000;
const callTimeoutMs = 10_000;
const execTimeoutMs = 60_000;

/** What the nodes of a cluster have alike. */
export interface PodSources {
  readonly rendered: Rendered;
  /** The root filesystem of the image; containers cannot write it. */
  readonly rootDirectory: string;
  readonly secrets: Readonly<Record<string, string>>;
  readonly apiToken: Readonly<Record<string, string>>;
  /** Where the API server is. */
  readonly api: { readonly address: string; readonly port: number };
}

/**
 * A node of a cluster, with a network of its own: a real containerd, and the pod of the chart's
 * DaemonSet, its containers run by runc with the users, capabilities, mounts, arguments, variables
 * and memory limits that the rendered chart says, in the order in which a kubelet starts them.
 *
 * It differs from a kubelet in this: no seccomp profile, no restarts of containers that end, and
 * probes are made when a test wants them.
 */
export class PodNode {
  readonly name: string;
  readonly host: NetworkHost;
  readonly containerd: ContainerdNode;
  readonly #scope: TestScope;
  readonly #sources: PodSources;
  readonly #spec: KubeObject;
  readonly #hostPaths: VolumeSources['hostPaths'];
  readonly #programs = new Map<string, Program>();
  readonly #ids = new Map<string, string>();
  #volumes: ReadonlyMap<string, string> = new Map();
  #starts = 0;
  #containers = 0;

  private constructor(
    scope: TestScope,
    parts: { host: NetworkHost; containerd: ContainerdNode; sources: PodSources },
  ) {
    this.#scope = scope;
    this.name = parts.host.name;
    this.host = parts.host;
    this.containerd = parts.containerd;
    this.#sources = parts.sources;
    this.#spec = nodePod(parts.sources.rendered).spec;
    this.#hostPaths = {
      '/run/containerd': dirname(parts.containerd.socketPath),
      '/var/lib/containerd/io.containerd.content.v1.content': parts.containerd.contentPath,
      '/etc/containerd/certs.d': parts.containerd.certsDirectory,
      '/var/lib/salvor': join(scope.directory, this.name, 'salvor-state'),
    };
  }

  /** Starts containerd, which nothing tells of Salvor, on a machine of its own. */
  static async create(
    scope: TestScope,
    options: { readonly host: NetworkHost; readonly sources: PodSources },
  ): Promise<PodNode> {
    const { host, sources } = options;
    const socketDirectory = join(scope.socketDirectory, host.name);
    await mkdir(socketDirectory);
    const containerd = await startContainerd(scope, {
      name: host.name,
      socketPath: join(socketDirectory, 'containerd.sock'),
      launcher: host.launcher,
    });
    return new PodNode(scope, { host, containerd, sources });
  }

  /** Such as "registry". */
  program(container: string): Program {
    const found = this.#programs.get(container);
    if (found === undefined) throw new Error(`Cannot use ${container} of ${this.name} yet`);
    return found;
  }

  /** What the registry that runs now logged about requests, in order. */
  requests(): RequestLine[] {
    return this.program('registry')
      .lines()
      .filter((line) => line.text.includes('"msg":"request"'))
      .map((line) => JSON.parse(line.text) as RequestLine);
  }

  /** Makes a new pod, and waits until all of it has started. */
  async startPod(): Promise<void> {
    this.#starts += 1;
    const directory = join(this.#scope.directory, this.name, `pod-${this.#starts}`);
    // A kubelet's directories can be passed by users that pods run as.
    for (const each of [this.#scope.directory, join(this.#scope.directory, this.name)]) {
      await chmod(each, 0o755);
    }
    this.#volumes = await makeVolumes(
      { directory: join(directory, 'volumes'), spec: this.#spec },
      { ...this.#sources, hostPaths: this.#hostPaths },
    );
    for (const container of this.#spec['initContainers'] as Container[]) {
      const program = await this.start(container.name);
      if (container['restartPolicy'] === 'Always') continue;
      const { code } = await program.exited;
      if (code !== 0) throw new Error(`${container.name} of ${this.name} ended with ${code}`);
    }
    for (const container of this.#spec['containers'] as Container[]) {
      await this.start(container.name);
    }
  }

  /** Ends the pod as a kubelet does: containers, then sidecars in reverse order, by SIGTERM. */
  async stopPod(): Promise<void> {
    const graceMs = (this.#spec['terminationGracePeriodSeconds'] as number) * 1000;
    for (const container of this.#spec['containers'] as Container[]) {
      await this.program(container.name).stop(graceMs);
    }
    for (const container of (this.#spec['initContainers'] as Container[]).toReversed()) {
      await this.program(container.name).stop(graceMs);
    }
  }

  /** Starts one container of the pod and waits for its startup probe, if it has one. */
  async start(name: string): Promise<Program> {
    const container = this.#container(name);
    const id = `${this.#scope.directory.split('/').at(-1)}-${this.name}-${name}-${this.#nextId()}`;
    const bundle = join(this.#scope.directory, this.name, id);
    await mkdir(bundle);
    const spec = runtimeSpec({
      container,
      fsGroup: this.#spec['securityContext'].fsGroup as number,
      rootDirectory: this.#sources.rootDirectory,
      namespacePath: this.host.namespacePath,
      hostname: this.name,
      cgroupsPath: `/salvor-test/${id}`,
      env: {
        KUBERNETES_SERVICE_HOST: this.#sources.api.address,
        KUBERNETES_SERVICE_PORT: String(this.#sources.api.port),
      },
      volumes: this.#volumes,
      files: await this.#files(bundle),
      field: (path) => this.#field(path),
    });
    await writeFile(join(bundle, 'config.json'), JSON.stringify(spec, undefined, 2));
    const runtime = this.#runtime;
    // Whatever ends the runtime, nothing of the container stays.
    this.#scope.defer(async () => {
      await run(toolPath('runc'), [...runtime, 'delete', '--force', id], {
        timeout: callTimeoutMs,
      }).catch(() => undefined);
    });
    const program = await Program.start(this.#scope, {
      name: `${this.name}-${name}-${this.#starts}`,
      command: toolPath('runc'),
      arguments: [...runtime, 'run', '--bundle', bundle, id],
    });
    this.#programs.set(name, program);
    this.#ids.set(name, id);
    if (container['startupProbe'] !== undefined) await this.#started(container, program);
    return program;
  }

  /** @returns the status that a page of the node's loopback answers with; undefined: nobody does */
  async page(port: number, path: string): Promise<{ status: number; body: string } | undefined> {
    const [command, ...first] = this.host.launcher as [string, ...string[]];
    const ask = `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3`;
    const answer = await run(command, [...first, 'timeout', '4', 'bash', '-c', ask], {
      timeout: callTimeoutMs,
      maxBuffer: 16 * 1024 * 1024,
    }).catch(() => undefined);
    const [, status, body] =
      /^HTTP\/1\.[01] (\d+)[^]*?\r\n\r\n([^]*)$/.exec(answer?.stdout ?? '') ?? [];
    return status === undefined ? undefined : { status: Number(status), body: body! };
  }

  /** @returns whether a container's readiness probe succeeds */
  async isReady(name: string): Promise<boolean> {
    const { port, path } = this.#container(name)['readinessProbe'].httpGet as {
      port: number;
      path: string;
    };
    return (await this.page(port, path))?.status === 200;
  }

  /** Runs the program in a container, as `kubectl exec` does: with its user, rights and variables. */
  async exec(
    name: string,
    arguments_: readonly string[],
  ): Promise<{ readonly code: number; readonly out: string; readonly error: string }> {
    const id = this.#ids.get(name) ?? '';
    const command = [...this.#runtime, 'exec', id, 'salvor', ...arguments_];
    return new Promise((resolve) => {
      execFile(toolPath('runc'), command, { timeout: execTimeoutMs }, (error, out, errorText) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), out, error: errorText });
      });
    });
  }

  /** @returns what the kernel says of a container's process, as proc_pid_status(5) */
  async processStatus(name: string): Promise<Readonly<Record<string, string>>> {
    const { stdout } = await run(toolPath('runc'), [
      ...this.#runtime,
      'state',
      this.#ids.get(name) ?? '',
    ]);
    const { pid } = JSON.parse(stdout) as { pid: number };
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const lines = status.split('\n').map((line) => line.split(/:\s*/) as [string, string]);
    return Object.fromEntries(lines);
  }

  get #runtime(): readonly string[] {
    return ['--root', join(this.#scope.directory, 'runc')];
  }

  #container(name: string): Container {
    return nodePod(this.#sources.rendered).container(name);
  }

  #nextId(): number {
    this.#containers += 1;
    return this.#containers;
  }

  async #started(container: Container, program: Program): Promise<void> {
    const { port, path } = container['startupProbe'].httpGet as { port: number; path: string };
    await waitFor(
      async () => {
        if (program.hasExited) throw new Error(`${program.name} ended: ${lastLines(program)}`);
        return (await this.page(port, path))?.status === 200;
      },
      {
        what: `${program.name} started`,
        timeoutMs: probeTimeoutMs,
        detail: () => lastLines(program),
      },
    );
  }

  /** What a kubelet puts into every container. */
  async #files(bundle: string): Promise<Readonly<Record<string, string>>> {
    const texts = {
      hosts: `127.0.0.1 localhost\n${this.host.address} ${this.name}\n`,
      // Of the node, as dnsPolicy Default says; nobody answers there.
      'resolv.conf': 'nameserver 127.0.0.53\n',
    };
    for (const [name, text] of Object.entries(texts)) await writeFile(join(bundle, name), text);
    return Object.fromEntries(
      Object.keys(texts).map((name) => [`/etc/${name}`, join(bundle, name)]),
    );
  }

  #field(path: string): string {
    if (path === 'spec.nodeName') return this.name;
    if (path === 'status.podIP') return this.host.address;
    throw new Error(`Cannot tell ${path}`);
  }
}

function lastLines(program: Program): string {
  return program
    .lines(program.lineCount - 15)
    .map(({ text }) => text)
    .join('\n');
}
