import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import type { TagStatement } from '../../src/rpc/agent-protocol.ts';
import { createAuthority, type Authority } from '../../src/rpc/certificates.ts';
import type { RequestLine } from './cluster.ts';
import { identityPaths, writeIdentity, type IdentityPaths } from './identity-files.ts';
import { freePort } from './ports.ts';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';
import { repositoryRoot } from './tools.ts';

const readyTimeoutMs = 30_000;
const callTimeoutMs = 5000;

export interface DirectoryNodeOptions {
  readonly name: string;
  /** "127.0.0.1:port" of its agent for other nodes. */
  readonly agentAddress: string;
  readonly members: readonly { readonly name: string; readonly address: string }[];
  readonly upstreams: Readonly<Record<string, object>>;
  /** Merged into the configuration's sections. */
  readonly registry?: object;
  readonly agent?: object;
  /** In place of that of the test's own. */
  readonly watchdog?: object;
  /** More arguments of node itself, such as --expose-gc. */
  readonly nodeArguments?: readonly string[];
  /** A command that runs the command that follows it, for what its processes shall find. */
  readonly launcher?: readonly string[] | Readonly<Record<'agent' | 'registry', readonly string[]>>;
}

/**
 * A node without containerd: a registry and an agent over a directory, each a process of its own,
 * mutual TLS towards other nodes. What the node "has pulled" is put there by {@link hold}.
 */
export class DirectoryNode {
  readonly name: string;
  readonly registryPort: number;
  readonly adminPort: number;
  readonly agentAdminPort: number;
  readonly storeDirectory: string;
  readonly #scope: TestScope;
  readonly #configPath: string;
  readonly #socketPath: string;
  readonly #nodeArguments: readonly string[];
  readonly #launcher: NonNullable<DirectoryNodeOptions['launcher']>;
  #agent: Program | undefined;
  #registry: Program | undefined;
  #starts = 0;

  private constructor(
    scope: TestScope,
    parts: {
      readonly name: string;
      readonly directory: string;
      readonly socketPath: string;
      readonly registryPort: number;
      readonly adminPort: number;
      readonly agentAdminPort: number;
      readonly nodeArguments: readonly string[];
      readonly launcher: NonNullable<DirectoryNodeOptions['launcher']>;
    },
  ) {
    this.#scope = scope;
    this.name = parts.name;
    this.registryPort = parts.registryPort;
    this.adminPort = parts.adminPort;
    this.agentAdminPort = parts.agentAdminPort;
    this.storeDirectory = join(parts.directory, 'store');
    this.#configPath = join(parts.directory, 'config.json');
    this.#socketPath = parts.socketPath;
    this.#nodeArguments = parts.nodeArguments;
    this.#launcher = parts.launcher;
  }

  /** Writes the configuration, and starts nothing yet. */
  static async create(
    scope: TestScope,
    options: DirectoryNodeOptions,
    authority: Authority,
  ): Promise<DirectoryNode> {
    const { name } = options;
    const directory = join(scope.directory, name);
    const [registryPort, adminPort] = [await freePort(), await freePort()];
    const agentAdminPort = await freePort();
    const socketPath = join(scope.socketDirectory, `${name}.sock`);
    const ports = { registryPort, adminPort, agentAdminPort };
    const { launcher = [], nodeArguments = [] } = options;
    const parts = { name, directory, socketPath, launcher, nodeArguments, ...ports };
    const node = new DirectoryNode(scope, parts);
    await mkdir(join(node.storeDirectory, 'blobs', 'sha256'), { recursive: true });
    const config = {
      node: { name, stateDirectory: join(directory, 'state') },
      registry: {
        listen: `127.0.0.1:${registryPort}`,
        admin: `127.0.0.1:${adminPort}`,
        agentSocket: socketPath,
        proveSocket: join(scope.socketDirectory, `${name}-prove.sock`),
        upstreams: options.upstreams,
        ...options.registry,
      },
      agent: {
        listen: options.agentAddress,
        admin: `127.0.0.1:${agentAdminPort}`,
        socket: socketPath,
        store: { kind: 'directory', directory: { path: node.storeDirectory } },
        members: { static: options.members },
        ...options.agent,
      },
      tls: await writeIdentity(directory, authority),
      watchdog: options.watchdog ?? { timeoutMs: 10_000 },
    };
    await writeFile(node.#configPath, JSON.stringify(config, undefined, 2));
    return node;
  }

  /**
   * Creates nodes that know each other, with an authority of their own.
   *
   * @param options as in {@link create}, the same for all of them
   */
  static async createGroup<N extends string>(
    scope: TestScope,
    names: readonly N[],
    options: Omit<DirectoryNodeOptions, 'name' | 'agentAddress' | 'members'>,
  ): Promise<Record<N, DirectoryNode>> {
    const authority = await createAuthority();
    const members: { name: N; address: string }[] = [];
    for (const name of names) members.push({ name, address: `127.0.0.1:${await freePort()}` });
    const nodes = await Promise.all(
      members.map(async ({ name, address }) => {
        const own = { ...options, name, agentAddress: address, members };
        return [name, await DirectoryNode.create(scope, own, authority)] as const;
      }),
    );
    return Object.fromEntries(nodes) as Record<N, DirectoryNode>;
  }

  /** The configuration file of both processes, JSON. */
  get configPath(): string {
    return this.#configPath;
  }

  /** Of the agent's unix socket. */
  get socketPath(): string {
    return this.#socketPath;
  }

  /** PEM files of the node's certificate. */
  get identityPaths(): IdentityPaths {
    return identityPaths(dirname(this.#configPath));
  }

  /** Of the registry's unix socket for proofs. */
  get proveSocket(): string {
    return this.#socketPath.replace(/\.sock$/, '-prove.sock');
  }

  get url(): string {
    return `http://127.0.0.1:${this.registryPort}`;
  }

  /** The agent that was started last. */
  get agent(): Program {
    if (this.#agent === undefined) throw new Error(`Cannot use the agent of ${this.name} yet`);
    return this.#agent;
  }

  /** The registry that was started last. */
  get registry(): Program {
    if (this.#registry === undefined)
      throw new Error(`Cannot use the registry of ${this.name} yet`);
    return this.#registry;
  }

  async startAgent(): Promise<void> {
    this.#agent = await this.#start('agent');
  }

  async startRegistry(): Promise<void> {
    this.#registry = await this.#start('registry');
  }

  /** Puts a blob or manifest into the node's store. */
  async hold(digest: string, bytes: Buffer): Promise<void> {
    await writeFile(this.#pathOf(digest), bytes);
  }

  /** Takes it out again. */
  async drop(digest: string): Promise<void> {
    await rm(this.#pathOf(digest), { force: true });
  }

  /**
   * Tells the node's agent what an upstream has confirmed, as the node's registry would.
   *
   * @param name "registry/repository:tag"
   */
  async observe(name: string, tag: TagStatement): Promise<void> {
    const client = new AgentClient(
      { target: `unix:${this.#socketPath}`, windowBytes: 64 * 1024, name: this.name },
      { credentials: credentials.createInsecure() },
    );
    try {
      await client.observe(name, tag, { timeoutMs: callTimeoutMs });
    } finally {
      client.close();
    }
  }

  /**
   * What the registry logged about requests, in order, from a mark on.
   *
   * @param from as in Program.lines
   */
  requests(from = 0): RequestLine[] {
    return this.registry
      .lines(from)
      .filter(({ text }) => text.includes('"msg":"request"'))
      .map(({ text }) => JSON.parse(text) as RequestLine);
  }

  #pathOf(digest: string): string {
    return join(this.storeDirectory, 'blobs', digest.replace(':', '/'));
  }

  async #start(role: 'agent' | 'registry'): Promise<Program> {
    this.#starts += 1;
    const main = join(repositoryRoot, 'src', 'main.ts');
    const run = [...this.#nodeArguments, main, role, '--config', this.#configPath];
    const launcher = 'agent' in this.#launcher ? this.#launcher[role] : this.#launcher;
    const [command = process.execPath, ...rest] = launcher;
    const program = await Program.start(this.#scope, {
      name: `${this.name}-${role}-${this.#starts}`,
      command,
      arguments: launcher.length === 0 ? run : [...rest, process.execPath, ...run],
    });
    await program.waitForLine(/"msg":"ready"/, { timeoutMs: readyTimeoutMs });
    return program;
  }
}
