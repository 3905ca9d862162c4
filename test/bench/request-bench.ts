import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { askInPairs, releaseHerd } from './load-client.ts';
import type { RawTarget } from './raw-connection.ts';
import { median, singleResult, type BenchResult } from './result.ts';
import { format, type BenchContext } from './rounds.ts';
import { startLoneNode } from './salvor-node.ts';
import { addedAt, countRequests } from './samples.ts';

const repository = 'bench/requests';
const addedNames = ['manifest.added', 'manifest.added.p99'];
const herdName = 'herd.manifest';
const tagCount = 400;
/** A node does less for a tag that it was asked for in the last seconds. */
const roundIntervalMs = 6000;
const herdClients = 500;

/** Every name that {@link benchRequests} may give results under. */
export const requestNames: readonly string[] = [...addedNames, herdName];

/** One registry that is well, and one node that asks it. */
interface Scene {
  readonly upstream: DockerRegistry;
  readonly image: Image;
  /** The node, or the registry itself. */
  target(of: 'node' | 'upstream', method: RawTarget['method']): RawTarget;
  /** Path of a tag at the node. */
  nodePath(tag: string): string;
}

/** What single requests cost while the registry is well: in time, and in requests to it. */
export async function benchRequests(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-requests', async (scope) => {
    context.progress('requests: starting a registry and a node');
    const scene = await startScene(scope, context);
    const results: BenchResult[] = [];
    if (addedNames.some(context.wants)) results.push(...(await benchAdded(scene, context)));
    if (context.wants(herdName)) results.push(await benchHerd(scene, context));
    return results;
  });
}

async function startScene(scope: TestScope, context: BenchContext): Promise<Scene> {
  const upstream = await startDockerRegistry(scope, { name: 'request-upstream' });
  const image = await buildImage({
    directory: join(scope.directory, 'image'),
    layers: [{ randomBytes: 10_000 }],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  const node = await startLoneNode(scope, {
    name: 'node',
    upstreams: { [upstream.host]: { url: upstream.url } },
    program: context.program,
  });
  return {
    upstream,
    image,
    target: (of, method) => ({
      method,
      port: of === 'node' ? node.registryPort : upstream.port,
      accept: image.mediaType,
    }),
    nodePath: (tag) => `${upstreamPath(tag)}?ns=${upstream.host}`,
  };
}

function upstreamPath(tag: string): string {
  return `/v2/${repository}/manifests/${tag}`;
}

/**
 * What `imagePullPolicy: Always` costs more: HEAD of a tag that the node was asked for before, but
 * not just now. The first round, which does not count, is the first that it hears of the tags.
 */
async function benchAdded(scene: Scene, context: BenchContext): Promise<BenchResult[]> {
  const own = scene.target('node', 'HEAD');
  const base = scene.target('upstream', 'HEAD');
  const tags = await pushTags(scene);
  const paths = tags.map((tag) => ({ own: scene.nodePath(tag), base: upstreamPath(tag) }));
  const middles: number[] = [];
  const all: { own: number[]; base: number[] } = { own: [], base: [] };
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    const nextRoundAtMs = performance.now() + roundIntervalMs;
    const answer = await askInPairs({ own, base, paths }, context.signal);
    const [middle, tail] = [addedAt(answer, 0.5), addedAt(answer, 0.99)];
    const which = round === 0 ? 'warming up' : `${round}/${context.pairs}`;
    const times = `${format(median(answer.own))} against ${format(median(answer.base))} ms`;
    context.progress(`manifest.added ${which}: ${times}, p99 ${format(tail)} ms more`);
    if (round > 0) {
      middles.push(middle);
      all.own.push(...answer.own);
      all.base.push(...answer.base);
    }
    if (round === context.pairs) break;
    const waitMs = Math.max(0, nextRoundAtMs - performance.now());
    await delay(waitMs, undefined, { signal: context.signal });
  }
  const rounds = middles.length;
  const unit = 'ms';
  return [
    singleResult({ name: addedNames[0]!, unit, must: '<=3' }, median(middles), rounds),
    singleResult({ name: addedNames[1]!, unit, must: '<=15' }, addedAt(all, 0.99), rounds),
  ];
}

async function pushTags({ image, upstream }: Scene): Promise<string[]> {
  const tags = Array.from({ length: tagCount }, (_, index) => `tag-${index}`);
  for (const tag of tags) await pushImage({ baseUrl: upstream.url, repository, tag }, image);
  return tags;
}

/** How often the registry is asked when many clients of a node ask at once. */
async function benchHerd(scene: Scene, context: BenchContext): Promise<BenchResult> {
  const plan = {
    target: scene.target('node', 'GET'),
    path: scene.nodePath('v1'),
    clients: herdClients,
  };
  const counts: number[] = [];
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    scene.upstream.clearAccesses();
    const { answers, slowestMs } = await releaseHerd(plan, context.signal);
    const count = countRequests(scene.upstream.accesses(), upstreamPath('v1'));
    const which = round === 0 ? 'warming up' : `${round}/${context.pairs}`;
    const asked = `${count} requests for ${answers} answers`;
    context.progress(`${herdName} ${which}: ${asked}, the last after ${format(slowestMs)} ms`);
    if (round > 0) counts.push(count);
  }
  return singleResult(
    { name: herdName, unit: 'requests', must: '<=2' },
    median(counts),
    counts.length,
  );
}
