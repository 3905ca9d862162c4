import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startCluster, type ClusterNode } from '../support/cluster.ts';
import type { ContainerdNode } from '../support/containerd-node.ts';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { pushImage } from '../support/push.ts';
import { waitFor } from '../support/wait.ts';
import { withScope } from '../support/test-scope.ts';
import { buildPullImage, type PullContent } from './pull-image.ts';
import { pairedResult, type BenchResult } from './result.ts';
import { runPairs, type BenchContext, type Side } from './rounds.ts';
import { waitUntilHashed } from './salvor-node.ts';

const collectTimeoutMs = 30_000;
const run = promisify(execFile);
const baseline = 'ctr pull from docker-registry';
const must = '<=1.15';
const syncTimeoutMs = 60_000;

/** What is pulled under which names: the bound is for images as people build them. */
const images = [
  { content: 'files', upstream: 'pull.upstream', peer: 'pull.peer', must },
  { content: 'random', upstream: 'pull.upstream.random', peer: 'pull.peer.random' },
] as const satisfies readonly {
  readonly content: PullContent;
  readonly upstream: string;
  readonly peer: string;
  readonly must?: string;
}[];

/** Every name that {@link benchPulls} may give results under. */
export const pullNames: readonly string[] = images.flatMap(({ upstream, peer }) => [
  upstream,
  peer,
]);

/** How long containerd takes for an image of 256 MB, beside pulling it directly. Needs root. */
export async function benchPulls(context: BenchContext): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const image of images) {
    if (!context.wants(image.upstream) && !context.wants(image.peer)) continue;
    results.push(...(await benchImage(context, image)));
  }
  return results;
}

async function benchImage(
  context: BenchContext,
  wanted: (typeof images)[number],
): Promise<BenchResult[]> {
  return withScope('bench-pulls', async (scope) => {
    const { content } = wanted;
    context.progress(`pulls: making an image of ${content}, starting two nodes with containerd`);
    const upstream = await startDockerRegistry(scope, { name: 'pull-upstream' });
    // The same image at a registry that stays alive when the upstream dies.
    const direct = await startDockerRegistry(scope, { name: 'pull-direct' });
    const image = await buildPullImage(join(scope.directory, 'image'), content);
    const repository = `bench/${content}`;
    for (const { url } of [upstream, direct]) {
      await pushImage({ baseUrl: url, repository, tag: 'v1' }, image);
    }
    const cluster = await startCluster(scope, {
      program: context.program,
      nodes: ['holder', 'puller'],
      upstreams: { [upstream.host]: { url: upstream.url } },
    });
    const puller = cluster.node('puller');
    const mirrored = `${upstream.host}/${repository}:v1`;
    const own = pull(puller.containerd, mirrored, {});
    const base = pull(puller.containerd, `${direct.host}/${repository}:v1`, {
      hostsDirectory: null,
      plainHttp: true,
    });
    const results: BenchResult[] = [];
    const compare = async (name: string, source: RegExp): Promise<void> => {
      const seen = puller.requests().length;
      const { seconds } = await runPairs(context, { name, show: 'seconds', unit: 's', own, base });
      requireSource(puller, seen, source);
      const bound = 'must' in wanted ? { must: wanted.must } : {};
      results.push(pairedResult({ name, unit: 's', baseline, ...bound }, seconds));
    };
    if (context.wants(wanted.upstream)) await compare(wanted.upstream, /^upstream$/);
    if (context.wants(wanted.peer)) {
      await cluster.node('holder').containerd.ctrPull(mirrored);
      const digests = image.blobs.map(({ digest }) => digest);
      await waitUntilHashed(join(scope.socketDirectory, 'holder-agent.sock'), digests);
      await upstream.kill('SIGKILL');
      await compare(wanted.peer, /^node\/holder$/);
    }
    return results;
  });
}

/** A pull onto a node that has nothing; what it brought is removed again, which does not count. */
function pull(
  node: ContainerdNode,
  reference: string,
  options: Parameters<ContainerdNode['ctrPull']>[1],
): Side<'seconds'> {
  return async () => {
    const startedMs = performance.now();
    await node.ctrPull(reference, options);
    const seconds = (performance.now() - startedMs) / 1000;
    // By CRI, since that keeps names of its own for every image.
    await node.removeImage(reference);
    // Garbage collection follows the removal, sooner or later.
    await waitFor(async () => (await node.blobs()).length === 0, {
      what: `an empty store on ${node.name}`,
      timeoutMs: collectTimeoutMs,
    });
    // What one side has not written to disk yet must not be in the other one's way.
    await run('sync', [], { timeout: syncTimeoutMs });
    return { seconds };
  };
}

function requireSource(node: ClusterNode, from: number, pattern: RegExp): void {
  const requests = node.requests().slice(from);
  // A manifest that the registry has in memory comes from there; every blob comes from its source.
  const isFrom = (url: string, source: string): boolean =>
    pattern.test(source) || (source === 'memory' && url.includes('/manifests/'));
  const odd = requests.find(({ url, source, status }) => status !== 200 || !isFrom(url, source));
  if (requests.length > 0 && odd === undefined) return;
  throw new Error(`Cannot count these pulls: ${JSON.stringify(odd ?? 'none went through Salvor')}`);
}
