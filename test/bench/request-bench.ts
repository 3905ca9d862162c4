import { join } from 'node:path';
import { createAuthority } from '../../src/rpc/certificates.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { askInPairs, releaseHerd } from './load-client.ts';
import type { RawQuestion } from './raw-connection.ts';
import { median, singleResult, type BenchResult } from './result.ts';
import { format, type BenchContext } from './rounds.ts';
import { nameMembers, startSalvorNode } from './salvor-node.ts';
import { added, countRequests, percentile } from './samples.ts';

const repository = 'bench/requests';
const addedNames = ['manifest.added', 'manifest.added.p99'];
const herdName = 'herd.manifest';
const requestsPerRound = 400;
const herdClients = 500;

/** Every name that {@link benchRequests} may give results under. */
export const requestNames: readonly string[] = [...addedNames, herdName];

/** One registry that is well, and one node that asks it. */
interface Scene {
  readonly upstream: DockerRegistry;
  /** The manifest's path at the registry itself. */
  readonly path: string;
  /** What a client asks, of the node or of the registry itself. */
  question(of: 'node' | 'upstream', method: RawQuestion['method']): RawQuestion;
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
  const members = await nameMembers(['node']);
  const node = await startSalvorNode(
    scope,
    {
      name: 'node',
      agentAddress: members[0]!.address,
      members,
      upstreams: { [upstream.host]: { url: upstream.url } },
      blobs: [],
      program: context.program,
    },
    await createAuthority(),
  );
  const path = `/v2/${repository}/manifests/v1`;
  return {
    upstream,
    path,
    question: (of, method) => ({
      method,
      port: of === 'node' ? node.registryPort : upstream.port,
      path: of === 'node' ? `${path}?ns=${upstream.host}` : path,
      accept: image.mediaType,
    }),
  };
}

/** What `imagePullPolicy: Always` costs more: HEAD of a tag. */
async function benchAdded(scene: Scene, context: BenchContext): Promise<BenchResult[]> {
  const own = scene.question('node', 'HEAD');
  const base = scene.question('upstream', 'HEAD');
  const middles: number[] = [];
  const all: number[] = [];
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    const plan = { own, base, count: requestsPerRound };
    const answer = await askInPairs(plan, context.signal);
    const samples = added(answer.own, answer.base);
    const middle = median(samples);
    const which = round === 0 ? 'warming up' : `${round}/${context.pairs}`;
    const times = `${format(median(answer.own))} against ${format(median(answer.base))} ms`;
    context.progress(`manifest.added ${which}: ${times}, ${format(middle)} ms more`);
    if (round === 0) continue;
    middles.push(middle);
    all.push(...samples);
  }
  const rounds = middles.length;
  const unit = 'ms';
  return [
    singleResult({ name: addedNames[0]!, unit, must: '<=3' }, median(middles), rounds),
    singleResult({ name: addedNames[1]!, unit, must: '<=15' }, percentile(all, 0.99), rounds),
  ];
}

/** How often the registry is asked when many clients of a node ask at once. */
async function benchHerd(scene: Scene, context: BenchContext): Promise<BenchResult> {
  const question = scene.question('node', 'GET');
  const counts: number[] = [];
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    scene.upstream.clearAccesses();
    const { answers, slowestMs } = await releaseHerd(
      { question, clients: herdClients },
      context.signal,
    );
    const count = countRequests(scene.upstream.accesses(), scene.path);
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
