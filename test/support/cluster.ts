import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createAuthority, type Authority } from '../../src/rpc/certificates.ts';
import { startContainerd, type ContainerdNode } from './containerd-node.ts';
import type { ContainerdVersion } from './containerd-version.ts';
import { writeIdentity } from './identity-files.ts';
import { freePort } from './ports.ts';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';
import { sourceProgram, type ProgramPath } from './program-path.ts';

/** How a cluster is set up. */
export interface ClusterOptions {
  /** Names of the nodes; each gets a containerd daemon, an agent and a registry. */
  readonly nodes: readonly string[];
  /** What is special about upstreams, as in the configuration, by registry name. */
  readonly upstreams: Readonly<Record<string, object>>;
  /** Merged into the registries' and agents' configuration, section by section. */
  readonly registry?: object;
  readonly agent?: object;
  /** The same for the agents of some nodes, by name; instead of the common one. */
  readonly agents?: Readonly<Record<string, object>>;
  readonly watchdogMs?: number;
  /** How Salvor's processes are started; as sources unless told. */
  readonly program?: ProgramPath;
  /** On all nodes, or on those that are named. */
  readonly discardUnpackedLayers?: boolean | readonly string[];
  /** What the daemons' root directories are in; the scope's directory unless told. */
  readonly rootParent?: string;
  /** The packaged one unless told. */
  readonly containerdVersion?: ContainerdVersion;
}

/** One line of a registry's log about one request. */
export interface RequestLine {
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly decision: string;
  /** "upstream", "memory", "node/<name>", several with commas between. */
  readonly source: string;
  readonly tried: readonly { readonly source: string; readonly outcome: string }[];
  readonly end: string;
  readonly bytes: number;
  readonly headersMs: number;
  readonly totalMs: number;
}

/** One node: a real containerd with a Salvor agent and registry beside it. */
export class ClusterNode {
  readonly name: string;
  readonly containerd: ContainerdNode;
  readonly registryPort: number;
  readonly registryAdminPort: number;
  readonly agentAdminPort: number;
  /** Of the registry's unix socket for proofs. */
  readonly proveSocket: string;
  /** Of both processes, JSON. */
  readonly configPath: string;
  readonly #scope: TestScope;
  readonly #program: ProgramPath;
  #agent: Program | undefined;
  #registry: Program | undefined;
  #starts = 0;

  constructor(
    scope: TestScope,
    parts: {
      name: string;
      containerd: ContainerdNode;
      configPath: string;
      proveSocket: string;
      program: ProgramPath;
      ports: { registry: number; registryAdmin: number; agentAdmin: number };
    },
  ) {
    this.#scope = scope;
    this.name = parts.name;
    this.containerd = parts.containerd;
    this.configPath = parts.configPath;
    this.proveSocket = parts.proveSocket;
    this.#program = parts.program;
    this.registryPort = parts.ports.registry;
    this.registryAdminPort = parts.ports.registryAdmin;
    this.agentAdminPort = parts.ports.agentAdmin;
  }

  /** The registry's base URL. */
  get url(): string {
    return `http://127.0.0.1:${this.registryPort}`;
  }

  get agent(): Program {
    if (this.#agent === undefined) throw new Error(`Cannot use the agent of ${this.name} yet`);
    return this.#agent;
  }

  get registry(): Program {
    if (this.#registry === undefined)
      throw new Error(`Cannot use the registry of ${this.name} yet`);
    return this.#registry;
  }

  /** Starts the agent, as a process of its own, and waits until it is ready. */
  async startAgent(): Promise<void> {
    this.#agent = await this.#start('agent');
  }

  /** Starts the registry, as a process of its own, and waits until it is ready. */
  async startRegistry(): Promise<void> {
    this.#registry = await this.#start('registry');
  }

  /** Changes settings of the agent in the file that both processes watch. */
  async configureAgent(settings: object): Promise<void> {
    const config = JSON.parse(await readFile(this.configPath, 'utf8')) as { agent: object };
    const changed = { ...config, agent: { ...config.agent, ...settings } };
    await writeFile(this.configPath, JSON.stringify(changed, undefined, 2));
  }

  /** What the registry logged about requests, in order. */
  requests(): RequestLine[] {
    return this.registry
      .lines()
      .filter((line) => line.text.includes('"msg":"request"'))
      .map((line) => JSON.parse(line.text) as RequestLine);
  }

  async #start(role: 'agent' | 'registry'): Promise<Program> {
    this.#starts += 1;
    const program = await Program.start(this.#scope, {
      name: `${this.name}-${role}-${this.#starts}`,
      command: this.#program.command,
      env: { ...process.env, ...this.#program.env },
      // A port for the inspector, so that a test can make the process spin.
      arguments: [
        '--inspect-port=127.0.0.1:0',
        this.#program.main,
        role,
        '--config',
        this.configPath,
      ],
    });
    await program.waitForLine(/"msg":"ready"/, { timeoutMs: 20_000 });
    return program;
  }
}

/** Several nodes that know each other. */
export interface Cluster {
  /** Has issued the identities of all of them. */
  readonly authority: Authority;
  readonly nodes: readonly ClusterNode[];
  /** @throws when there is no node of that name */
  node(name: string): ClusterNode;
  /** Adds a node that knows the others; they do not know it. */
  add(name: string): Promise<ClusterNode>;
}

/** Starts real containerd daemons with Salvor processes beside them, mutual TLS between them. */
export async function startCluster(scope: TestScope, options: ClusterOptions): Promise<Cluster> {
  const authority = await createAuthority();
  const agentPorts = new Map<string, number>();
  for (const name of options.nodes) agentPorts.set(name, await freePort());
  const members = [...agentPorts].map(([name, port]) => ({ name, address: `127.0.0.1:${port}` }));
  const nodes: ClusterNode[] = [];
  const add = async (name: string): Promise<ClusterNode> => {
    const port = agentPorts.get(name) ?? (await freePort());
    const node = await startNode(scope, options, { name, port, members, authority });
    nodes.push(node);
    return node;
  };
  for (const name of options.nodes) await add(name);
  return {
    authority,
    nodes,
    add,
    node: (name) => {
      const found = nodes.find((node) => node.name === name);
      if (found === undefined) throw new Error(`Cannot find the node ${name}`);
      return found;
    },
  };
}

async function startNode(
  scope: TestScope,
  options: ClusterOptions,
  wanted: {
    name: string;
    port: number;
    members: readonly { name: string; address: string }[];
    authority: Authority;
  },
): Promise<ClusterNode> {
  const { name, port, members } = wanted;
  const ports = {
    registry: await freePort(),
    registryAdmin: await freePort(),
    agentAdmin: await freePort(),
  };
  const containerd = await startContainerd(scope, {
    name,
    mirrors: [{ url: `http://127.0.0.1:${ports.registry}` }],
    discardUnpackedLayers: discards(options.discardUnpackedLayers, name),
    ...(options.rootParent !== undefined && { rootParent: options.rootParent }),
    ...(options.containerdVersion && { version: options.containerdVersion }),
  });
  const directory = join(scope.directory, `${name}-salvor`);
  const tls = await writeIdentity(directory, wanted.authority, { addresses: ['127.0.0.1'] });
  const socket = join(scope.socketDirectory, `${name}-agent.sock`);
  const proveSocket = join(scope.socketDirectory, `${name}-prove.sock`);
  const config = {
    node: { name, stateDirectory: join(directory, 'state') },
    registry: {
      listen: `127.0.0.1:${ports.registry}`,
      admin: `127.0.0.1:${ports.registryAdmin}`,
      agentSocket: socket,
      proveSocket,
      upstreams: options.upstreams,
      ...options.registry,
    },
    agent: {
      listen: `127.0.0.1:${port}`,
      admin: `127.0.0.1:${ports.agentAdmin}`,
      socket,
      store: { kind: 'containerd', containerd: { socket: containerd.socketPath } },
      members: { static: members },
      // Images that a test removes are gone, unless it is about their being kept.
      copies: { wanted: 0 },
      ...(options.agents?.[name] ?? options.agent),
    },
    tls,
    watchdog: { timeoutMs: options.watchdogMs ?? 10_000 },
  };
  const configPath = join(directory, 'config.json');
  await writeFile(configPath, JSON.stringify(config, undefined, 2));
  const node = new ClusterNode(scope, {
    name,
    containerd,
    configPath,
    proveSocket,
    program: options.program ?? sourceProgram,
    ports,
  });
  await node.startAgent();
  await node.startRegistry();
  return node;
}

function discards(nodes: boolean | readonly string[] | undefined, name: string): boolean {
  return typeof nodes === 'object' ? nodes.includes(name) : (nodes ?? false);
}
