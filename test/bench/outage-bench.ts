import { join } from 'node:path';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { withScope } from '../support/test-scope.ts';
import { loadManifests } from './load-client.ts';
import {
  pushTaggedImages,
  startOutageScene,
  type Darkness,
  type OutageScene,
  type RegistryName,
  type TaggedImage,
} from './outage-scene.ts';
import { median, pairedResult, singleResult, type BenchResult } from './result.ts';
import { format, runPairs, type BenchContext, type Side } from './rounds.ts';

const failoverNames = ['failover.first', 'failover.tenth'];
const rateName = 'open.rate';
const darknesses: readonly Darkness[] = ['dropped', 'silent'];
const pullsInOutage = 10;
const connections = 8;
const seconds = 2;
const unit = 'requests/s';

/** Every name that {@link benchOutages} may give results under. */
export const outageNames: readonly string[] = [...failoverNames, rateName];

/** How quickly nodes help while a registry says nothing. */
export async function benchOutages(context: BenchContext): Promise<BenchResult[]> {
  return withScope('bench-outages', async (scope) => {
    context.progress('outages: starting a registry and pushing images');
    const registry = await startDockerRegistry(scope, { name: 'outage-upstream' });
    const directory = join(scope.directory, 'images');
    const images = await pushTaggedImages(registry, { directory, count: 1 + 2 * pullsInOutage });
    const results: BenchResult[] = [];
    if (failoverNames.some(context.wants)) {
      results.push(...(await benchFailover(registry, images, context)));
    }
    if (context.wants(rateName)) results.push(await benchRate(registry, images, context));
    return results;
  });
}

/** What one outage gave. */
interface Failover {
  readonly firstSeconds: number;
  readonly tenthAddedMs: number;
}

/** Every round is an outage of its own, met by nodes that have just been started. */
async function benchFailover(
  registry: DockerRegistry,
  images: readonly TaggedImage[],
  context: BenchContext,
): Promise<BenchResult[]> {
  const found: Record<Darkness, Failover[]> = { dropped: [], silent: [] };
  for (let round = 1; round <= context.pairs; round += 1) {
    for (const darkness of darknesses) {
      context.signal.throwIfAborted();
      const outage = await failOver(registry, images, { darkness, program: context.program });
      found[darkness].push(outage);
      const first = `the first pull after ${format(outage.firstSeconds)} s`;
      const tenth = `the tenth ${format(outage.tenthAddedMs)} ms slower than healthy`;
      context.progress(`failover ${round}/${context.pairs}, ${darkness}: ${first}, ${tenth}`);
    }
  }
  const worst = (pick: (outage: Failover) => number): number =>
    Math.max(...darknesses.map((darkness) => median(found[darkness].map(pick))));
  const rounds = context.pairs;
  return [
    singleResult(
      { name: failoverNames[0]!, unit: 's', must: '<=2' },
      worst(({ firstSeconds }) => firstSeconds),
      rounds,
    ),
    singleResult(
      { name: failoverNames[1]!, unit: 'ms', must: '<=10' },
      worst(({ tenthAddedMs }) => tenthAddedMs),
      rounds,
    ),
  ];
}

async function failOver(
  registry: DockerRegistry,
  images: readonly TaggedImage[],
  options: { readonly darkness: Darkness } & Pick<BenchContext, 'program'>,
): Promise<Failover> {
  const { darkness, program } = options;
  const [warmUp, ...others] = images;
  const [held, healthy] = [others.slice(0, pullsInOutage), others.slice(pullsInOutage)];
  return withScope('bench-failover', async (scope) => {
    const scene = await startOutageScene(scope, { registry, held, program });
    // The reader then has a connection to the registry that goes silent under it.
    await scene.pull('dark.test:5000', warmUp!);
    const healthyMs: number[] = [];
    for (const image of healthy) {
      healthyMs.push((await scene.pull('well.test:5000', image)).headersMs);
    }
    await scene.fallSilent(darkness);
    const outageMs: number[] = [];
    for (const image of held) outageMs.push(await pullFromNode(scene, image));
    return {
      firstSeconds: outageMs[0]! / 1000,
      tenthAddedMs: outageMs.at(-1)! - median(healthyMs),
    };
  });
}

async function pullFromNode(scene: OutageScene, image: TaggedImage): Promise<number> {
  const { headersMs, source } = await scene.pull('dark.test:5000', image);
  if (source !== 'node/holder') throw new Error(`Cannot count a pull that came from ${source}`);
  return headersMs;
}

/** The same node, tag and client, once with a registry in outage and once with one that is well. */
async function benchRate(
  registry: DockerRegistry,
  images: readonly TaggedImage[],
  context: BenchContext,
): Promise<BenchResult> {
  const image = images[0]!;
  return withScope('bench-open-rate', async (scope) => {
    const { program } = context;
    const scene = await startOutageScene(scope, { registry, held: [image], program });
    await scene.fallSilent('silent');
    // It proves the outage; afterwards the manifest is in memory.
    await pullFromNode(scene, image);
    const side = (name: RegistryName): Side<'requests'> => {
      const { registryPort: port } = scene.reader;
      const path = scene.path(name, image);
      const plan = { port, path, connections, seconds, accept: image.mediaType };
      return async () => {
        const { requests, elapsedMs } = await loadManifests(plan, context.signal);
        return { requests: requests / (elapsedMs / 1000) };
      };
    };
    const { requests } = await runPairs(context, {
      name: rateName,
      show: 'requests',
      unit,
      own: side('dark.test:5000'),
      base: side('well.test:5000'),
    });
    const baseline = 'its registry healthy';
    return pairedResult({ name: rateName, unit, baseline, must: '>=1' }, requests);
  });
}
