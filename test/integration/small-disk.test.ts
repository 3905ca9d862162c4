import { open, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { readDiskUsage, usedPercent } from '../../src/agent/disk-usage.ts';
import { startCluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { buildImage, contentOf } from '../support/image.ts';
import { get } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('small-disk');
const mebibyte = 1024 ** 2;
const diskBytes = 512 * mebibyte;
const layerBytes = 6 * mebibyte;
/** Six images and a bit. */
const budgetBytes = 40 * mebibyte;
const writeBytes = mebibyte / 2;
const sampleMs = 20;
const kubeletPercent = 85;
const repository = 'team/app';

interface TestImage {
  readonly reference: string;
  readonly content: readonly { readonly digest: string; readonly size: number }[];
}

/** A moment: how full the disk was, and how much was on it of images that were removed. */
interface Sample {
  readonly usedPercent: number;
  readonly removedBytes: number;
}

/** Looks at the disk again and again, without asking Salvor. */
class Sampler {
  readonly samples: Sample[] = [];
  readonly removed = new Set<TestImage>();
  readonly #node: ClusterNode;
  readonly #ended = new AbortController();
  readonly #running: Promise<void>;

  constructor(node: ClusterNode) {
    this.#node = node;
    this.#running = this.#run();
  }

  async end(): Promise<void> {
    this.#ended.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      // Removal answers when garbage collection is over, so what is left then is kept by somebody.
      const images = [...this.removed];
      const usage = await readDiskUsage(this.#node.containerd.root);
      let removedBytes = 0;
      for (const { digest } of images.flatMap(({ content }) => content)) {
        const file = await stat(this.#node.containerd.blobPath(digest)).catch(() => undefined);
        removedBytes += file?.size ?? 0;
      }
      this.samples.push({ usedPercent: usedPercent(usage), removedBytes });
      await delay(sampleMs);
    }
  }
}

/** Writes a file into the disk of a node, at a steady pace, until the disk is so full. */
async function fillTo(node: ClusterNode, percent: number, bytesPerSecond: number): Promise<string> {
  const path = join(node.containerd.root, '..', 'other-data');
  const file = await open(path, 'a');
  try {
    const chunk = Buffer.alloc(writeBytes, 7);
    while (usedPercent(await readDiskUsage(path)) < percent) {
      await file.write(chunk);
      await delay((1000 * writeBytes) / bytesPerSecond);
    }
  } finally {
    await file.close();
  }
  return path;
}

async function push(upstream: DockerRegistry, host: string, tag: string): Promise<TestImage> {
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: layerBytes, seed: tag }],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag }, built);
  return { reference: `${host}/${repository}:${tag}`, content: contentOf(built) };
}

interface Status {
  readonly copies: {
    readonly pressure: string;
    readonly guardedBytes: number;
    readonly heldImages: number;
    readonly heldBytes: number;
  };
}

async function status(node: ClusterNode): Promise<Status['copies']> {
  const { body } = await get(`http://127.0.0.1:${node.agentAdminPort}/status`);
  return (JSON.parse(body.toString()) as Status).copies;
}

test('last copies stay within their budget and are gone before a disk that fills up is at 85 %', async () => {
  const rootParent = await mountSmallDisk(scope(), { name: 'disk', sizeBytes: diskBytes });
  const upstream = await startDockerRegistry(scope());
  const proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  const host = `127.0.0.1:${proxy.port}`;
  const cluster = await startCluster(scope(), {
    // On its own, a node has the last copy of everything.
    nodes: ['a'],
    upstreams: { [host]: { url: proxy.url } },
    agent: {
      copies: { wanted: 2, pollIntervalMs: 1000, budgetBytes, budgetPercent: 50 },
      diskIntervalMs: 100,
    },
    rootParent,
  });
  const node = cluster.node('a');
  const tags = Array.from({ length: 8 }, (_, index) => `v${index}`);
  const images = await Promise.all(tags.map((tag) => push(upstream, host, tag)));
  const late = await push(upstream, host, 'late');
  const sampler = new Sampler(node);
  scope().defer(() => sampler.end());

  // Other data are written all the time, slowly at first.
  const early = fillTo(node, 60, 30 * mebibyte);
  for (const { reference } of images) await node.containerd.pull(reference);
  await waitFor(async () => (await status(node)).guardedBytes > budgetBytes - layerBytes, {
    what: 'guards up to the budget',
    timeoutMs: 20_000,
  });
  for (const image of images) {
    await node.containerd.removeImage(image.reference);
    sampler.removed.add(image);
  }
  await waitFor(async () => (await status(node)).heldImages === 6, { what: 'six held images' });
  await early;

  // A pull is under way from before the first copy goes until all have gone.
  await fillTo(node, 70, 30 * mebibyte);
  await proxy.setMode({ kind: 'throttle', bytesPerSecond: layerBytes / 24 });
  const pulled = node.containerd.pull(late.reference);
  const path = await fillTo(node, 92, 12 * mebibyte);
  expect((await node.containerd.ingests()).map(({ ref }) => ref)).not.toEqual([]);
  await proxy.setMode({ kind: 'pass' });
  await pulled;
  await sampler.end();

  const { samples } = sampler;
  const most = Math.max(...samples.map(({ removedBytes }) => removedBytes));
  expect(most).toBeLessThanOrEqual(budgetBytes);
  expect(most).toBeGreaterThan(budgetBytes - layerBytes);
  const full = samples.filter((sample) => sample.usedPercent >= kubeletPercent);
  expect(full.length).toBeGreaterThan(10);
  expect(Math.max(...full.map(({ removedBytes }) => removedBytes))).toBe(0);
  // They went one after the other, not all at once.
  const partly = samples.filter((each) => each.usedPercent > 70 && each.removedBytes < most);
  expect(Math.max(...partly.map(({ removedBytes }) => removedBytes))).toBeGreaterThan(layerBytes);
  for (const { digest } of late.content) await node.containerd.verifyBlob(digest);
  expect(await node.containerd.isUnpacked(late.reference)).toBe(true);
  expect(node.containerd.warnings()).toEqual([]);
  expect(await status(node)).toMatchObject({ pressure: 'drop', guardedBytes: 0, heldBytes: 0 });

  // With room again, what is here is guarded again.
  await unlink(path);
  await waitFor(async () => (await status(node)).guardedBytes > 0, { timeoutMs: 20_000 });
  expect((await status(node)).pressure).toBe('none');
});
