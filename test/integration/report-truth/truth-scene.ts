import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { startCluster, type Cluster, type ClusterNode } from '../../support/cluster.ts';
import { ContainerdFiller } from '../../support/containerd-filler.ts';
import { startDockerRegistry, type DockerRegistry } from '../../support/docker-registry.ts';
import { writeImageArchive } from '../../support/image-archive.ts';
import { contentOf, type Image } from '../../support/image.ts';
import { get } from '../../support/oci-client.ts';
import { freePort } from '../../support/ports.ts';
import { pushImage } from '../../support/push.ts';
import type { TestScope } from '../../support/test-scope.ts';
import { waitFor } from '../../support/wait.ts';

/** Nodes that have images; the last one discards layers that it has unpacked. */
export type HolderName = 'one' | 'two' | 'discards';

/** Background hashing looks again after this long, so that the scene need not wait for it. */
const SWEEP_MS = 1000;

/** Nodes with images in every state, one without any, and a registry that dies. */
export class TruthScene {
  readonly scope: TestScope;
  readonly upstream: DockerRegistry;
  readonly cluster: Cluster;
  /** A registry that has never answered anybody. */
  readonly silentHost: string;

  private constructor(parts: {
    scope: TestScope;
    upstream: DockerRegistry;
    cluster: Cluster;
    silentHost: string;
  }) {
    this.scope = parts.scope;
    this.upstream = parts.upstream;
    this.cluster = parts.cluster;
    this.silentHost = parts.silentHost;
  }

  static async start(scope: TestScope): Promise<TruthScene> {
    const upstream = await startDockerRegistry(scope);
    const silentPort = await freePort();
    const silentHost = `127.0.0.1:${silentPort}`;
    const cluster = await startCluster(scope, {
      nodes: ['one', 'two', 'discards', 'empty'],
      discardUnpackedLayers: ['discards'],
      upstreams: {
        [upstream.host]: { url: upstream.url },
        [silentHost]: { url: `http://${silentHost}` },
      },
      registry: { policies: [{ match: `${upstream.host}/truth/bypassed`, mode: 'bypass' }] },
      agent: {
        integrity: { sweepIntervalMs: SWEEP_MS },
        // Nothing is to be mended or held, so that each image stays in its state.
        repair: { mode: 'off' },
        backfill: { mode: 'off' },
        copies: { wanted: 0 },
      },
    });
    return new TruthScene({ scope, upstream, cluster, silentHost });
  }

  /** What Pods call the image of a case. */
  reference(name: string, host = this.upstream.host): string {
    return `${host}/truth/${name}:v1`;
  }

  node(name: HolderName | 'empty'): ClusterNode {
    return this.cluster.node(name);
  }

  async push(name: string, image: Image): Promise<void> {
    const target = { baseUrl: this.upstream.url, repository: `truth/${name}`, tag: 'v1' };
    await pushImage(target, image);
  }

  /** Pulls as kubelet does. What was there before Salvor, or discards, does not come through it. */
  async pull(name: string, ...nodes: readonly HolderName[]): Promise<void> {
    for (const node of nodes) {
      const { containerd } = this.node(node);
      if (node === 'discards') await containerd.writeHosts('');
      await containerd.pull(this.reference(name));
    }
  }

  /** Pulls past Salvor, for a platform. */
  async pullDirectly(name: string, node: HolderName, platform?: string): Promise<void> {
    const { containerd } = this.node(node);
    const flags = [...(platform === undefined ? [] : ['--platform', platform]), '--plain-http'];
    const snapshotter = ['--snapshotter', containerd.snapshotter];
    await containerd.ctr(['images', 'pull', ...flags, ...snapshotter, this.reference(name)]);
  }

  /** Puts an image on a node without any registry. */
  async importImage(name: string, image: Image, node: HolderName): Promise<void> {
    const { containerd } = this.node(node);
    const path = join(this.scope.directory, `${name}.tar`);
    await writeImageArchive(image, { path, name: this.reference(name) });
    await containerd.ctr(['images', 'import', '--no-unpack', path]);
  }

  /** Writes records and content that no client of containerd would. */
  async fill(name: string, image: Image, node: HolderName): Promise<void> {
    const filler = new ContainerdFiller(this.node(node).containerd.socketPath);
    try {
      await filler.addBlob(image.manifest);
      for (const blob of image.blobs) {
        await filler.addBlob('data' in blob ? blob.data : await readWhole(blob.path));
      }
      const { digest, mediaType, size } = image;
      await filler.addImage(this.reference(name), { digest, mediaType, size });
    } finally {
      filler.close();
    }
  }

  /** Loses the file of a blob, which containerd still has on its books. */
  async lose(digest: string, node: HolderName): Promise<void> {
    await rm(this.node(node).containerd.blobPath(digest));
  }

  /** Flips a byte of a blob and leaves its size alone. */
  async corrupt(digest: string, node: HolderName): Promise<void> {
    const file = await open(this.node(node).containerd.blobPath(digest), 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 40);
    byte[0] = (byte[0] ?? 0) ^ 0xff;
    await file.write(byte, 0, 1, 40);
    await file.close();
  }

  /** Lets a blob refer no longer to one of those below it: garbage collection takes that one. */
  async unlabel(digest: string, reference: string, node: HolderName): Promise<void> {
    const label = `containerd.io/gc.ref.content.${reference}=`;
    await this.node(node).containerd.ctr(['content', 'label', digest, label]);
  }

  /** Runs garbage collection to its end. */
  async collectGarbage(node: HolderName): Promise<void> {
    const { containerd } = this.node(node);
    const lease = (await containerd.ctr(['leases', 'create'])).trim();
    await containerd.ctr(['leases', 'delete', '--sync', lease]);
  }

  /** The upstream answers a node's registry what the tag names, later than it has before. */
  async confirmTag(name: string, node: HolderName): Promise<void> {
    const { url } = this.node(node);
    // Upstreams tell time in whole seconds.
    const beganAtMs = Date.now();
    await waitFor(() => Math.floor(Date.now() / 1000) > Math.floor(beganAtMs / 1000));
    const answer = await get(`${url}/v2/truth/${name}/manifests/v1?ns=${this.upstream.host}`);
    if (answer.status !== 200) throw new Error(`Cannot confirm ${name}: status ${answer.status}`);
  }

  /** How many corrupt blobs a node's background hashing has found. */
  async corruptBlobs(node: HolderName): Promise<number> {
    const { body } = await get(`http://127.0.0.1:${this.node(node).agentAdminPort}/metrics`);
    return Number(/^salvor_agent_corrupt_blobs_total (\d+)$/m.exec(body.toString())?.[1] ?? 0);
  }

  /** Whether an image's every digest is on the books of some node, and its manifest on a disk. */
  async predictions(image: Image): Promise<{ manifest: boolean; books: boolean }> {
    const holders: readonly HolderName[] = ['one', 'two', 'discards'];
    const books = new Set<string>();
    const disks = new Set<string>();
    for (const holder of holders) {
      const { containerd } = this.node(holder);
      for (const digest of (await containerd.ctr(['content', 'list', '-q'])).split('\n')) {
        books.add(digest);
      }
      for (const digest of await containerd.blobs()) disks.add(digest);
    }
    return {
      manifest: disks.has(image.digest),
      books: contentOf(image).every(({ digest }) => books.has(digest)),
    };
  }
}

async function readWhole(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}
