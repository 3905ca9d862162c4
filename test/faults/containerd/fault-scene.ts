import { open, readFile } from 'node:fs/promises';
import { startCluster, type Cluster, type ClusterNode } from '../../support/cluster.ts';
import { startContainerd, type ContainerdNode } from '../../support/containerd-node.ts';
import type { ContainerdVersion } from '../../support/containerd-version.ts';
import { startDockerRegistry, type DockerRegistry } from '../../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { buildImage } from '../../support/image.ts';
import { sha256 } from '../../support/layer.ts';
import { pushImage, type PushedImage } from '../../support/push.ts';
import type { TestScope } from '../../support/test-scope.ts';
import { startTokenServer, type TokenServer } from '../../support/token-server.ts';
import type { FaultCase } from './fault-case.ts';
import type { PullResult } from './support-result.ts';

const layerBytes = 6_000_000;
const alteredByte = 5_000_000;

/** A case with its image, on an address of its own: no case's outage is another one's. */
interface Stage {
  readonly proxy: FaultProxy;
  readonly image: PushedImage;
  readonly reference: string;
  readonly layer: { readonly digest: string; readonly size: number };
}

/**
 * One containerd version in five places: on a node with good copies, on one with altered copies,
 * on one that pulls through Salvor, on one whose Salvor is dead, and on one that has no Salvor.
 */
export class FaultScene {
  readonly #scope: TestScope;
  readonly #version: ContainerdVersion;
  readonly #stages = new Map<string, Stage>();
  readonly #cluster: Cluster;
  readonly #tokens: TokenServer;
  readonly direct: ContainerdNode;

  private constructor(
    parts: { scope: TestScope; version: ContainerdVersion; stages: ReadonlyMap<string, Stage> },
    started: { cluster: Cluster; direct: ContainerdNode; tokens: TokenServer },
  ) {
    this.#scope = parts.scope;
    this.#version = parts.version;
    this.#stages = new Map(parts.stages);
    this.#cluster = started.cluster;
    this.direct = started.direct;
    this.#tokens = started.tokens;
  }

  /** Starts everything; each image is then where its case wants it, and nothing is wrong yet. */
  static async start(
    scope: TestScope,
    options: { readonly version: ContainerdVersion; readonly cases: readonly FaultCase[] },
  ): Promise<FaultScene> {
    const { version, cases } = options;
    const tokens = await startTokenServer(scope);
    const open_ = await startDockerRegistry(scope, { name: 'open' });
    const guarded = await startDockerRegistry(scope, {
      name: 'guarded',
      auth: tokens.registryAuth,
    });
    const stages = new Map<string, Stage>();
    for (const each of cases) {
      const registry = each.needsToken === true ? guarded : open_;
      stages.set(each.id, await stage(scope, { each, registry, tokens }));
    }
    const upstreams = [...stages.values()].map(({ proxy }) => [proxy.host, { url: proxy.url }]);
    const cluster = await startCluster(scope, {
      nodes: ['honest', 'liar', 'puller', 'orphan'],
      upstreams: Object.fromEntries(upstreams) as Record<string, object>,
      containerdVersion: version,
      // Good copies are known to be good soon after they were pulled.
      // What is wrong has to stay wrong.
      agent: { integrity: { sweepIntervalMs: 1000 }, repair: { mode: 'off' } },
    });
    const direct = await startContainerd(scope, { name: 'direct', version });
    const scene = new FaultScene({ scope, version, stages }, { cluster, direct, tokens });
    for (const { id, holders } of cases) {
      for (const holder of holders) {
        await cluster.node(holder).containerd.pull(scene.#stage(id).reference);
      }
    }
    // Its agent goes too: what it pulls later is nobody's help.
    await cluster.node('orphan').agent.kill('SIGKILL');
    await cluster.node('orphan').registry.kill('SIGKILL');
    return scene;
  }

  /** The node that pulls through Salvor. */
  get puller(): ClusterNode {
    return this.#cluster.node('puller');
  }

  /** What goes wrong in a case goes wrong from now on. */
  async breakIt({ id, breakIt }: FaultCase): Promise<void> {
    const { proxy, layer } = this.#stage(id);
    await breakIt({
      scope: this.#scope,
      proxy,
      layerDigest: layer.digest,
      halfBytes: Math.floor((this.#version.rangeBytes ?? layer.size) / 2),
      tokens: this.#tokens,
    });
  }

  async pullDirectly(each: FaultCase, patienceMs: number): Promise<PullResult> {
    return this.#pull(each, { on: this.direct, patienceMs });
  }

  async pullPastDeadSalvor(each: FaultCase, patienceMs: number): Promise<PullResult> {
    return this.#pull(each, { on: this.#cluster.node('orphan').containerd, patienceMs });
  }

  async pullThroughSalvor(each: FaultCase, patienceMs: number): Promise<PullResult> {
    if (each.holders.includes('liar')) await this.#alterCopy(each);
    return this.#pull(each, { on: this.puller.containerd, patienceMs });
  }

  /** @throws when a pull ends well with anything but the whole image, or keeps wrong bytes */
  async #pull(
    { id }: FaultCase,
    { on, patienceMs }: { readonly on: ContainerdNode; readonly patienceMs: number },
  ): Promise<PullResult> {
    const { reference, image } = this.#stage(id);
    const begin = performance.now();
    const failure = await on.pull(reference, { timeoutMs: patienceMs }).then(
      () => undefined,
      (error: unknown) => error as Error,
    );
    const elapsedMs = performance.now() - begin;
    const wanted = [image.digest, ...image.blobs.map(({ digest }) => digest)];
    const seconds = Math.round(elapsedMs / 100) / 10;
    if (failure !== undefined) {
      await expectNothingWrong(on, wanted);
      const outcome = elapsedMs >= patienceMs ? 'hangs' : 'fails';
      return { outcome, seconds, reason: failure.message };
    }
    for (const digest of wanted) await on.verifyBlob(digest);
    if (!(await on.isUnpacked(reference))) {
      throw new Error(`Cannot use ${reference} on ${on.name}: it is not unpacked`);
    }
    return { outcome: 'succeeds', seconds };
  }

  /** Flips one byte of the layer, leaving its size alone. */
  async #alterCopy({ id }: FaultCase): Promise<void> {
    const path = this.#cluster.node('liar').containerd.blobPath(this.#stage(id).layer.digest);
    const file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, alteredByte);
    byte[0] = (byte[0] ?? 0) ^ 0xff;
    await file.write(byte, 0, 1, alteredByte);
    await file.close();
  }

  #stage(id: string): Stage {
    const found = this.#stages.get(id);
    if (found === undefined) throw new Error(`Cannot find the case ${id}: it was not set up`);
    return found;
  }
}

/** What is left of a failed pull may go at any time, but must be what its name says. */
async function expectNothingWrong(on: ContainerdNode, wanted: readonly string[]): Promise<void> {
  for (const digest of wanted) {
    const found = await readFile(on.blobPath(digest)).catch(() => undefined);
    if (found !== undefined && sha256(found) !== digest) {
      throw new Error(`Cannot trust ${digest} on ${on.name}: it has other bytes`);
    }
  }
}

async function stage(
  scope: TestScope,
  parts: {
    readonly each: FaultCase;
    readonly registry: DockerRegistry;
    readonly tokens: TokenServer;
  },
): Promise<Stage> {
  const { each, registry, tokens } = parts;
  const repository = `faults/${each.id}`;
  const authorization = tokens.authorization([`repository:${repository}:pull,push`]);
  const built = await buildImage({
    directory: scope.directory,
    layers: [
      { randomBytes: 50_000, seed: `${each.id}-small` },
      { randomBytes: layerBytes, seed: each.id },
    ],
  });
  const target = { baseUrl: registry.url, repository, tag: 'v1' };
  const image = await pushImage(
    each.needsToken === true ? { ...target, authorization } : target,
    built,
  );
  const proxy = await startFaultProxy(scope, { targetPort: registry.port });
  const layer = image.blobs.toSorted((a, b) => b.size - a.size)[0]!;
  return { proxy, image, layer, reference: `${proxy.host}/${repository}:v1` };
}
