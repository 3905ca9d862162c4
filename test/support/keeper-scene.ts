import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdEditor, type Labels } from '../../src/agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../../src/agent/containerd/containerd-leases.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { startCluster, type Cluster, type ClusterNode } from './cluster.ts';
import type { ContainerdVersion } from './containerd-version.ts';
import { startDockerRegistry, type DockerRegistry } from './docker-registry.ts';
import { buildImage, buildIndex, type Image } from './image.ts';
import { sourceProgram } from './program-path.ts';
import { pushImage } from './push.ts';
import type { TestScope } from './test-scope.ts';

const run = promisify(execFile);
const otherPlatform = { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' };
const markLabel = 'salvor.dev/kept';

/** An image at the upstream. */
export interface KeeperImage {
  readonly reference: string;
  readonly index: Digest | undefined;
  /** The manifest for this machine's platform. */
  readonly manifest: Digest;
  readonly config: Digest;
  readonly layers: readonly Digest[];
}

/**
 * Nodes whose containerd throws layers away once they are unpacked, one of them with the keeper
 * and one without; one that throws nothing away; one that never pulled anything.
 */
export class KeeperScene {
  readonly upstream: DockerRegistry;
  readonly kept: ClusterNode;
  readonly plain: ClusterNode;
  readonly ordinary: ClusterNode;
  readonly fresh: ClusterNode;
  readonly #scope: TestScope;

  private constructor(
    parts: { readonly scope: TestScope; readonly upstream: DockerRegistry },
    cluster: Cluster,
  ) {
    this.#scope = parts.scope;
    this.upstream = parts.upstream;
    this.kept = cluster.node('kept');
    this.plain = cluster.node('plain');
    this.ordinary = cluster.node('ordinary');
    this.fresh = cluster.node('fresh');
  }

  static async start(
    scope: TestScope,
    options: { readonly version?: ContainerdVersion } = {},
  ): Promise<KeeperScene> {
    const upstream = await startDockerRegistry(scope);
    const cluster = await startCluster(scope, {
      nodes: ['kept', 'plain', 'ordinary', 'fresh'],
      upstreams: { [upstream.host]: { url: upstream.url } },
      discardUnpackedLayers: ['kept', 'plain'],
      agents: { plain: { keeper: { mode: 'off' } } },
      ...(options.version && { containerdVersion: options.version }),
    });
    return new KeeperScene({ scope, upstream }, cluster);
  }

  /** Pushes an image for two platforms. Its first layer is that of every other one. */
  async pushIndex(name: string): Promise<KeeperImage> {
    const image = await this.#build(name, 'oci');
    const other = await buildImage({
      directory: this.#scope.directory,
      platform: otherPlatform,
      layers: [{ randomBytes: 20_000, seed: `${name}-other` }],
    });
    const index = buildIndex([other, image]);
    await this.#push(name, index);
    return this.#described(name, image, index);
  }

  /** Pushes an image in Docker's format. Its first layer is that of every other one. */
  async pushDocker(name: string): Promise<KeeperImage> {
    const image = await this.#build(name, 'docker');
    await this.#push(name, image);
    return this.#described(name, image);
  }

  /** Every label of a blob. @throws when the node does not have it */
  async labels(node: ClusterNode, digest: Digest): Promise<Labels> {
    return this.#with(node, async (connection) => {
      const labels = await new ContainerdEditor(connection).labels(digest);
      if (labels === undefined) throw new Error(`Cannot find ${digest} on ${node.name}`);
      return labels;
    });
  }

  /** The keys of the labels that Salvor has added to a blob; undefined: none. */
  async mark(node: ClusterNode, digest: Digest): Promise<string | undefined> {
    return (await this.labels(node, digest))[markLabel];
  }

  /** @returns those of the digests that are left when containerd has collected its garbage */
  async left(node: ClusterNode, digests: readonly Digest[]): Promise<Digest[]> {
    await this.#with(node, async (connection) => {
      const leases = new ContainerdLeases(connection);
      await leases.create('sweep', { flat: true });
      await leases.delete('sweep', { sync: true });
    });
    const held = new Set(await node.containerd.blobs());
    return digests.filter((digest) => held.has(digest));
  }

  /** `salvor node unkeep` on a node. @returns what it printed */
  async unkeep(node: ClusterNode, ...flags: string[]): Promise<string> {
    const { command, main } = sourceProgram;
    const socket = ['--agent-store-containerd-socket', node.containerd.socketPath];
    const { stdout } = await run(command, [main, 'node', 'unkeep', ...socket, ...flags]);
    return stdout;
  }

  /** A counter of a node's agent; 0 when it has not counted yet. */
  async counter(node: ClusterNode, name: string): Promise<number> {
    const answer = await fetch(`http://127.0.0.1:${node.agentAdminPort}/metrics`);
    const lines = (await answer.text()).split('\n');
    const line = lines.find((one) => one.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? 0);
  }

  async #build(name: string, format: 'oci' | 'docker'): Promise<Image> {
    return buildImage({
      directory: this.#scope.directory,
      format,
      layers: [
        { randomBytes: 120_000, seed: 'base' },
        { randomBytes: 2_000_000, seed: `${name}-big` },
        { randomBytes: 3000, seed: `${name}-small` },
      ],
    });
  }

  async #push(name: string, image: Image): Promise<void> {
    const target = { baseUrl: this.upstream.url, repository: `keeper/${name}`, tag: 'v1' };
    await pushImage(target, image);
  }

  #described(name: string, image: Image, index?: Image): KeeperImage {
    const [config, ...layers] = image.blobs.map(({ digest }) => digest as Digest);
    return {
      reference: `${this.upstream.host}/keeper/${name}:v1`,
      index: index?.digest as Digest | undefined,
      manifest: image.digest as Digest,
      config: config!,
      layers,
    };
  }

  async #with<T>(
    node: ClusterNode,
    body: (connection: ContainerdConnection) => Promise<T>,
  ): Promise<T> {
    const connection = new ContainerdConnection({ socketPath: node.containerd.socketPath });
    try {
      return await body(connection);
    } finally {
      connection.close();
    }
  }
}

/** Every blob that a node of this machine's platform has of an image. */
export function blobsOf({ index, manifest, config, layers }: KeeperImage): Digest[] {
  return [...(index === undefined ? [] : [index]), manifest, config, ...layers];
}
