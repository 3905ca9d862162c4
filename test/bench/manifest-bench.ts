import { join } from 'node:path';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { withScope } from '../support/test-scope.ts';
import { loadManifests } from './load-client.ts';
import { pairedResult, type BenchResult } from './result.ts';
import { runPairs, type BenchContext, type Side } from './rounds.ts';
import { startLoneNode } from './salvor-node.ts';

const connections = 8;
const seconds = 2;
const layers = 6;
const repository = 'bench/manifests';
const unit = 'requests/s';

/** Every name that {@link benchManifests} may give results under. */
export const manifestNames: readonly string[] = ['manifest.direct', 'manifest.proxy'];

/** How many manifests by tag come through, beside docker-registry itself and as a mirror. */
export async function benchManifests(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-manifests', async (scope) => {
    context.progress('manifests: starting a registry, a mirror and a node');
    const upstream = await startDockerRegistry(scope, { name: 'manifest-upstream' });
    const image = await buildImage({
      directory: join(scope.directory, 'image'),
      layers: Array.from({ length: layers }, (_, index) => ({
        randomBytes: 10_000,
        seed: `layer ${index}`,
      })),
    });
    await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
    const proxy = await startDockerRegistry(scope, { name: 'proxy', proxy: upstream.url });
    const node = await startLoneNode(scope, {
      name: 'mirror',
      upstreams: { [upstream.host]: { url: upstream.url } },
      program: context.program,
    });
    const path = `/v2/${repository}/manifests/v1`;
    const side = (port: number, query = ''): Side<'requests'> => {
      const plan = { port, path: `${path}${query}`, connections, seconds, accept: image.mediaType };
      return async () => {
        const { requests, elapsedMs } = await loadManifests(plan, context.signal);
        return { requests: requests / (elapsedMs / 1000) };
      };
    };
    const own = side(node.registryPort, `?ns=${upstream.host}`);
    const results: BenchResult[] = [];
    const compare = async (name: string, base: Side<'requests'>, label: Label): Promise<void> => {
      if (!context.wants(name)) return;
      const { requests } = await runPairs(context, { name, show: 'requests', unit, own, base });
      results.push(pairedResult({ name, unit, ...label }, requests));
    };
    await compare('manifest.direct', side(upstream.port), {
      baseline: 'docker-registry',
      must: '>=0.6',
    });
    await compare('manifest.proxy', side(proxy.port), {
      baseline: 'docker-registry as a mirror',
      must: '>=3',
    });
    return results;
  });
}

interface Label {
  readonly baseline: string;
  readonly must: string;
}
