import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startCluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { askInPairs } from './load-client.ts';
import { median, pairedResult, singleResult, type BenchResult } from './result.ts';
import { format, runPairs, type BenchContext, type Side } from './rounds.ts';
import { addedAt } from './samples.ts';

const run = promisify(execFile);
const mib = 1024 * 1024;
const firstByteName = 'keeper.first_byte';
const throughputName = 'keeper.throughput';
const smallImages = 24;
const smallLayers = 5;
const bigLayers = 4;
const bigBytes = 128 * mib;
const collectTimeoutMs = 30_000;
const syncTimeoutMs = 60_000;
const unkeepTimeoutMs = 60_000;

/** Every name that {@link benchKeeper} may give results under. */
export const keeperNames: readonly string[] = [firstByteName, throughputName];

/** Two nodes whose containerd discards layers; one of them keeps them. */
interface Scene {
  readonly upstream: DockerRegistry;
  readonly keeping: ClusterNode;
  readonly plain: ClusterNode;
}

/** What it costs a pull that its layers are kept. Needs root. */
export async function benchKeeper(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-keeper', async (scope) => {
    context.progress('keeper: starting two nodes with containerd');
    const scene = await startScene(scope, context);
    const results: BenchResult[] = [];
    if (context.wants(firstByteName)) results.push(await benchFirstByte(scope, scene, context));
    if (context.wants(throughputName)) results.push(await benchThroughput(scope, scene, context));
    return results;
  });
}

async function startScene(scope: TestScope, context: BenchContext): Promise<Scene> {
  const upstream = await startDockerRegistry(scope, { name: 'keeper-upstream' });
  const cluster = await startCluster(scope, {
    program: context.program,
    nodes: ['keeping', 'plain'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    discardUnpackedLayers: true,
    agents: { plain: { keeper: { mode: 'off' } } },
  });
  return { upstream, keeping: cluster.node('keeping'), plain: cluster.node('plain') };
}

/**
 * The first blob of an image waits until its layers are kept. Both nodes have the manifests, as
 * they do in a pull, and nothing is kept when a round begins.
 */
async function benchFirstByte(
  scope: TestScope,
  scene: Scene,
  context: BenchContext,
): Promise<BenchResult> {
  const { keeping, plain, upstream } = scene;
  context.progress(`keeper: pulling ${smallImages} small images`);
  const images: Image[] = [];
  for (let index = 0; index < smallImages; index += 1) {
    const name = `small-${index}`;
    images.push(await push(scope, upstream, { name, layers: smallLayers, bytes: 50_000 }));
    const reference = `${upstream.host}/${repositoryOf(name)}:v1`;
    for (const node of [keeping, plain]) await node.containerd.pull(reference);
  }
  const asked = images.flatMap(({ digest, blobs }, index) => {
    const base = `/v2/${repositoryOf(`small-${index}`)}`;
    const paths = [`manifests/${digest}`, ...blobs.map((blob) => `blobs/${blob.digest}`)];
    return paths.map((path) => `${base}/${path}?ns=${upstream.host}`);
  });
  // The config: the blob behind the manifest.
  const isFirst = asked.map((_, index) => asked[index - 1]?.includes('/manifests/') === true);
  const accept = images[0]!.mediaType;
  const target = (node: ClusterNode) =>
    ({ method: 'GET', port: node.registryPort, accept }) as const;
  const added: number[] = [];
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    await unkeep(keeping, context);
    const answer = await askInPairs(
      {
        own: target(keeping),
        base: target(plain),
        paths: asked.map((path) => ({ own: path, base: path })),
      },
      context.signal,
    );
    const own = answer.own.filter((_, index) => isFirst[index]);
    const base = answer.base.filter((_, index) => isFirst[index]);
    const value = addedAt({ own, base }, 0.5);
    const which = round === 0 ? 'warming up' : `${round}/${context.pairs}`;
    const times = `${format(median(own))} against ${format(median(base))} ms`;
    context.progress(`${firstByteName} ${which}: ${times}, ${format(value)} ms more`);
    if (round > 0) added.push(value);
  }
  await requireKept(keeping, smallImages * smallLayers * (context.pairs + 1));
  return singleResult(
    { name: firstByteName, unit: 'ms', must: '<=5' },
    median(added),
    added.length,
  );
}

/** Whole pulls, unpacking included, onto nodes that have nothing. */
async function benchThroughput(
  scope: TestScope,
  { keeping, plain, upstream }: Scene,
  context: BenchContext,
): Promise<BenchResult> {
  context.progress('keeper: making an image of 128 MiB');
  await push(scope, upstream, { name: 'big', layers: bigLayers, bytes: bigBytes });
  const reference = `${upstream.host}/${repositoryOf('big')}:v1`;
  const { megabytesPerSecond } = await runPairs(context, {
    name: throughputName,
    show: 'megabytesPerSecond',
    unit: 'MB/s',
    own: pull(keeping, reference),
    base: pull(plain, reference),
  });
  await requireKept(keeping, bigLayers * (context.pairs + 1));
  return pairedResult(
    { name: throughputName, unit: 'MB/s', baseline: 'the same without keeping', must: '>=0.97' },
    megabytesPerSecond,
  );
}

function pull({ containerd }: ClusterNode, reference: string): Side<'megabytesPerSecond'> {
  return async () => {
    const before = new Set(await containerd.blobs());
    const startedMs = performance.now();
    await containerd.pull(reference);
    const elapsedMs = performance.now() - startedMs;
    await containerd.removeImage(reference);
    await waitFor(async () => (await containerd.blobs()).every((digest) => before.has(digest)), {
      what: `what was pulled gone from ${containerd.name}`,
      timeoutMs: collectTimeoutMs,
    });
    // What one side has not written to disk yet must not be in the other one's way.
    await run('sync', [], { timeout: syncTimeoutMs });
    return { megabytesPerSecond: bigBytes / elapsedMs / 1000 };
  };
}

async function push(
  scope: TestScope,
  upstream: DockerRegistry,
  image: { readonly name: string; readonly layers: number; readonly bytes: number },
): Promise<Image> {
  const { name, layers, bytes } = image;
  const built = await buildImage({
    directory: join(scope.directory, name),
    layers: Array.from({ length: layers }, (_, index) => ({
      randomBytes: Math.floor(bytes / layers),
      seed: `${name} ${index}`,
    })),
  });
  await pushImage({ baseUrl: upstream.url, repository: repositoryOf(name), tag: 'v1' }, built);
  return built;
}

function repositoryOf(name: string): string {
  return `bench/${name}`;
}

async function unkeep(node: ClusterNode, { program }: BenchContext): Promise<void> {
  const socket = ['--agent-store-containerd-socket', node.containerd.socketPath];
  const arguments_ = [program.main, 'node', 'unkeep', ...socket];
  await run(program.command, arguments_, { timeout: unkeepTimeoutMs });
}

/** @throws unless the node has done what is measured */
async function requireKept(node: ClusterNode, least: number): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${node.agentAdminPort}/metrics`);
  const metrics = await answer.text();
  const labels = Number(
    /^salvor_agent_keeper_labels_restored_total (\d+)/m.exec(metrics)?.[1] ?? 0,
  );
  if (labels < least) {
    throw new Error(`Cannot count this: ${labels} references were restored, not ${least}`);
  }
}
