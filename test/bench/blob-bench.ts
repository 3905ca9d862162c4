import type { BlobFile } from '../support/layer.ts';
import { withScope } from '../support/test-scope.ts';
import { startBlobScene, type BlobScene, type BlobSourceName } from './blob-scene.ts';
import { readBlobs } from './load-client.ts';
import { startNginxProxy, type NginxProxy } from './nginx-proxy.ts';
import { cpuSeconds } from './process-stats.ts';
import { pairedResult, type BenchResult } from './result.ts';
import { runPairs, type BenchContext, type Side } from './rounds.ts';

const baseline = 'nginx proxy_pass';
const bounds = { upstream: '>=0.35', peer: '>=0.30' } as const;
const parallel = [3, 8, 16];

/** Every name that {@link benchBlobs} may give results under. */
export const blobNames: readonly string[] = (['upstream', 'peer'] as const).flatMap((source) => [
  `blob.${source}`,
  `blob.${source}.cpu`,
  ...parallel.map((count) => `blob.${source}.${count}`),
]);

/** How fast one or several blobs come through, and what that costs, beside nginx. */
export async function benchBlobs(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-blobs', async (scope) => {
    const scene = await startBlobScene(scope, context);
    const nginx = await startNginxProxy(scope, scene.upstream.url);
    const results: BenchResult[] = [];
    for (const source of ['upstream', 'peer'] as const) {
      const name = `blob.${source}`;
      if (context.wants(name) || context.wants(`${name}.cpu`)) {
        results.push(...(await benchOne(context, { scene, nginx, source, count: 1 })));
      }
      for (const count of parallel) {
        if (!context.wants(`${name}.${count}`)) continue;
        results.push(...(await benchOne(context, { scene, nginx, source, count })));
      }
    }
    return results;
  });
}

async function benchOne(
  context: BenchContext,
  setup: { scene: BlobScene; nginx: NginxProxy; source: BlobSourceName; count: number },
): Promise<BenchResult[]> {
  const { scene, nginx, source, count } = setup;
  const blob = count === 1 ? scene.big : scene.middling;
  const { holder, reader } = scene;
  // What else is in the way of the bytes, the upstream and the client, is the same on both sides.
  const salvorPids = [reader.registry.pid, reader.agent.pid, holder.agent.pid];
  const single = `blob.${source}`;
  const name = count === 1 ? single : `${single}.${count}`;
  const side = (at: { port: number; path: string }, pids: readonly number[]): Side<Measured> =>
    measured(context, { ...at, blob, count, pids });
  const rounds = await runPairs<Measured>(context, {
    name,
    show: 'megabytesPerSecond',
    unit: 'MB/s',
    own: side(scene.salvorPlan(source, blob), salvorPids),
    base: side({ port: nginx.port, path: scene.upstreamPath(blob) }, [nginx.program.pid]),
  });
  const must = count === 1 ? { must: bounds[source] } : {};
  return [
    pairedResult({ name, unit: 'MB/s', baseline, ...must }, rounds.megabytesPerSecond),
    ...(count === 1
      ? [pairedResult({ name: `${name}.cpu`, unit: 's/GB', baseline }, rounds.cpuPerGigabyte)]
      : []),
  ];
}

type Measured = 'megabytesPerSecond' | 'cpuPerGigabyte';

function measured(
  context: BenchContext,
  setup: { port: number; path: string; blob: BlobFile; count: number; pids: readonly number[] },
): Side<Measured> {
  const { port, path, blob, count, pids } = setup;
  return async () => {
    const before = cpuSeconds(pids);
    const plan = { port, path, connections: count, bytesPerSecond: 0 };
    const { bytes, elapsedMs } = await readBlobs(plan, context.signal);
    if (bytes !== blob.size * count) {
      throw new Error(`Cannot measure ${path}: ${bytes} bytes came, not ${blob.size * count}`);
    }
    return {
      megabytesPerSecond: bytes / elapsedMs / 1000,
      cpuPerGigabyte: (cpuSeconds(pids) - before) / (bytes / 1e9),
    };
  };
}
