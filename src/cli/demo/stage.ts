import { join } from 'node:path';
import { createAuthority, issueIdentity, type Authority } from '../../rpc/certificates.ts';
import { ContainerdDaemon } from './containerd-daemon.ts';
import type { ContainerdPrograms } from './containerd-programs.ts';
import { writeDemoImage } from './demo-image.ts';
import { DemoNode, type DemoImage } from './demo-node.ts';
import { pullImage } from './pull-client.ts';
import { NODE_NAMES, type NodeName, type Stage } from './script.ts';
import { UpstreamProcess } from './upstream-process.ts';
import { freePorts, type Workspace } from './workspace.ts';

export interface StageOptions {
  readonly image: DemoImage;
  /** The image is the demo's own, not one of a real registry. */
  readonly isBuiltIn: boolean;
  readonly programs: ContainerdPrograms | undefined;
}

/** Everything that the demo plays with: an upstream, nodes, and nodes without Salvor. */
export class DemoStage implements Stage {
  readonly upstream: UpstreamProcess;
  readonly upstreamText: string;
  readonly image: DemoImage;
  readonly #workspace: Workspace;
  readonly #programs: ContainerdPrograms | undefined;
  readonly #nodes = new Map<string, DemoNode>();
  #members: readonly { readonly name: string; readonly address: string }[] = [];
  #authority: Authority | undefined;
  #withoutSalvor = 0;

  private constructor(workspace: Workspace, options: StageOptions, upstream: UpstreamProcess) {
    const { image, isBuiltIn, programs } = options;
    this.#workspace = workspace;
    this.#programs = programs;
    this.image = image;
    this.upstream = upstream;
    this.upstreamText = isBuiltIn
      ? `the registry ${image.registry} answers on ${upstream.url}`
      : `${upstream.url} stands for the registry ${image.registry}: it passes on to ` +
        `${originOf(image.registry)} as long as it lives`;
  }

  /** Starts the upstream alone. */
  static async open(workspace: Workspace, options: StageOptions): Promise<DemoStage> {
    const { image } = options;
    const directory = join(workspace.directory, 'registry');
    if (options.isBuiltIn) await writeDemoImage(directory, image);
    const content = options.isBuiltIn ? { directory } : { forwardTo: originOf(image.registry) };
    const [port = 0] = await freePorts(1);
    const upstream = new UpstreamProcess(workspace, { port, content });
    await upstream.start();
    return new DemoStage(workspace, options, upstream);
  }

  async startNodes(onReady: (name: NodeName) => void): Promise<void> {
    this.#authority = await createAuthority();
    const ports = await freePorts(NODE_NAMES.length);
    this.#members = NODE_NAMES.map((name, index) => ({
      name,
      address: `127.0.0.1:${ports[index]}`,
    }));
    await Promise.all(
      NODE_NAMES.map(async (name, index) => {
        await this.startNode(name, { agentPort: ports[index] });
        onReady(name);
      }),
    );
  }

  /** Starts one more node, which knows the others. */
  async startNode(
    name: string,
    options: { readonly agentPort?: number | undefined } = {},
  ): Promise<DemoNode> {
    if (this.#authority === undefined) throw new Error('Cannot add a node to none');
    const [registry = 0, admin = 0, freePort = 0] = await freePorts(3);
    const node = await DemoNode.start(this.#workspace, {
      name,
      ports: { registry, admin, agent: options.agentPort ?? freePort },
      members: this.#members,
      upstream: { registry: this.image.registry, url: this.upstream.url },
      identity: await issueIdentity(this.#authority, ['agent', 'registry']),
      programs: this.#programs,
    });
    this.#nodes.set(name, node);
    return node;
  }

  node(name: NodeName): DemoNode {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new Error(`Cannot use node ${name} before its start`);
    return node;
  }

  /**
   * Pulls into a store that has nothing, with no mirror to ask.
   *
   * @throws when it fails
   */
  async pullWithoutSalvor(): Promise<void> {
    const { registry, repository, tag } = this.image;
    const { url } = this.upstream;
    if (this.#programs === undefined) {
      const { signal } = this.#workspace;
      await pullImage({ baseUrl: url, repository, reference: tag, signal });
      return;
    }
    this.#withoutSalvor += 1;
    const daemon = await ContainerdDaemon.start(this.#workspace, {
      name: `without-${this.#withoutSalvor}`,
      programs: this.#programs,
      server: url,
    });
    await daemon.pull(`${registry}/${repository}:${tag}`);
  }
}

/** Where a registry's API answers; plain http on loopback only. */
function originOf(registry: string): string {
  if (registry === 'docker.io') return 'https://registry-1.docker.io';
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(registry);
  return `${isLoopback ? 'http' : 'https'}://${registry}`;
}
