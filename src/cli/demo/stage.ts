import { join } from 'node:path';
import { createAuthority, issueIdentity, type Authority } from '../../rpc/certificates.ts';
import { ContainerdDaemon, type ContainerdPrograms } from './containerd-daemon.ts';
import { writeDemoImage } from './demo-image.ts';
import { DemoNode, type DemoImage } from './demo-node.ts';
import { pullImage } from './pull-client.ts';
import { UpstreamProcess } from './upstream-process.ts';
import { freePort, type Workspace } from './workspace.ts';

export const NODE_NAMES = ['a', 'b', 'c', 'd'] as const;
export type NodeName = (typeof NODE_NAMES)[number];

export interface StageOptions {
  readonly image: DemoImage;
  /** The image is the demo's own, not one of a real registry. */
  readonly isBuiltIn: boolean;
  readonly programs: ContainerdPrograms | undefined;
}

/** Everything that the demo plays with: an upstream, nodes, and a node without Salvor. */
export class DemoStage {
  readonly upstream: UpstreamProcess;
  readonly image: DemoImage;
  readonly #workspace: Workspace;
  readonly #programs: ContainerdPrograms | undefined;
  readonly #nodes = new Map<NodeName, DemoNode>();
  #bare = 0;

  private constructor(workspace: Workspace, options: StageOptions, upstream: UpstreamProcess) {
    this.#workspace = workspace;
    this.#programs = options.programs;
    this.image = options.image;
    this.upstream = upstream;
  }

  /** Starts the upstream alone. */
  static async open(workspace: Workspace, options: StageOptions): Promise<DemoStage> {
    const { image } = options;
    const directory = join(workspace.directory, 'registry');
    if (options.isBuiltIn) await writeDemoImage(directory, image);
    const content = options.isBuiltIn ? { directory } : { forwardTo: urlOf(image.registry) };
    const upstream = new UpstreamProcess(workspace, { port: await freePort(), content });
    await upstream.start();
    return new DemoStage(workspace, options, upstream);
  }

  /** Starts the nodes. */
  async startNodes(): Promise<void> {
    const authority = await createAuthority();
    const ports = new Map<NodeName, number>();
    for (const name of NODE_NAMES) ports.set(name, await freePort());
    const members = [...ports].map(([name, port]) => ({ name, address: `127.0.0.1:${port}` }));
    await Promise.all(
      [...ports].map(async ([name, agent]) => {
        this.#nodes.set(name, await this.#startNode(name, { agent, members, authority }));
      }),
    );
  }

  node(name: NodeName): DemoNode {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new Error(`Cannot use node ${name} before its start`);
    return node;
  }

  /**
   * The same pull as a node without Salvor makes it, into a store that has nothing.
   *
   * @throws when it fails
   */
  async pullWithoutSalvor(): Promise<void> {
    const { registry, repository, tag } = this.image;
    this.#bare += 1;
    if (this.#programs === undefined) {
      await pullImage({ baseUrl: this.upstream.url, repository, reference: tag });
      return;
    }
    const server = `server = ${JSON.stringify(this.upstream.url)}\n`;
    const host = `[host.${JSON.stringify(this.upstream.url)}]\ncapabilities = ["pull", "resolve"]\n`;
    const daemon = await ContainerdDaemon.start(this.#workspace, {
      name: `bare-${this.#bare}`,
      programs: this.#programs,
      hosts: { [registry.replace(':', '_')]: server + host, _default: server + host },
    });
    await daemon.pull(`${registry}/${repository}:${tag}`);
  }

  /** What a reader types to cause the outage by hand. */
  async instructions(): Promise<string[]> {
    const { registry, repository, tag } = this.image;
    const path = `/v2/${repository}/manifests/${tag}?ns=${registry}`;
    const accept = "-H 'Accept: application/vnd.oci.image.manifest.v1+json'";
    if (await this.#isUpstreamDead()) await this.upstream.start();
    return [
      '',
      `Everything keeps running; Ctrl-C ends it. The upstream is process ${this.upstream.pid}.`,
      'Cause the outage by hand, in another shell:',
      `  kill -STOP ${this.upstream.pid}      # it accepts and says nothing; kill -CONT ends that`,
      `  kill -KILL ${this.upstream.pid}      # it is gone`,
      'and pull through any node, before and after:',
      ...NODE_NAMES.map((name) => `  curl -i ${accept} '${this.node(name).registryUrl}${path}'`),
      `  skopeo inspect --tls-verify=false docker://${this.node('b').registryUrl.slice(7)}/${registry}/${repository}:${tag}`,
    ];
  }

  async #isUpstreamDead(): Promise<boolean> {
    return fetch(this.upstream.url, { signal: AbortSignal.timeout(1000) }).then(
      () => false,
      () => true,
    );
  }

  async #startNode(
    name: NodeName,
    options: {
      agent: number;
      members: readonly { name: string; address: string }[];
      authority: Authority;
    },
  ): Promise<DemoNode> {
    return DemoNode.start(this.#workspace, {
      name,
      ports: { registry: await freePort(), agent: options.agent, admin: await freePort() },
      members: options.members,
      upstream: { registry: this.image.registry, url: this.upstream.url },
      identity: await issueIdentity(options.authority, ['agent', 'registry']),
      programs: this.#programs,
    });
  }
}

function urlOf(registry: string): string {
  if (registry === 'docker.io') return 'https://registry-1.docker.io';
  const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+)(:|$)/.test(registry);
  return `${isLoopback ? 'http' : 'https'}://${registry}`;
}
