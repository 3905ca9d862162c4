import { randomBytes } from 'node:crypto';

import { Registry } from 'prom-client';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { ContainerdClient } from '../../src/agent/containerd/containerd-client.ts';
import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdEditor } from '../../src/agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../../src/agent/containerd/containerd-leases.ts';
import { ContainerdStore } from '../../src/agent/containerd/containerd-store.ts';
import { ImageKeeper } from '../../src/agent/keeper/image-keeper.ts';
import { createKeeperMetrics } from '../../src/agent/keeper/keeper-metrics.ts';
import { ManifestFinder } from '../../src/agent/keeper/manifest-finder.ts';
import { StoredManifests } from '../../src/agent/keeper/stored-manifests.ts';
import { unkeep } from '../../src/agent/keeper/unkeep.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { systemClock } from '../../src/telemetry/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { ContainerdFiller } from '../support/containerd-filler.ts';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { buildImage, buildIndex, type Image } from '../support/image.ts';
import { suiteScope } from '../support/test-scope.ts';

const startTimeoutMs = 60_000;
const prefix = 'containerd.io/gc.ref.content.';

const scope = suiteScope('image-keeper');
let node: ContainerdNode;
let filler: ContainerdFiller;
let connection: ContainerdConnection;
let client: ContainerdClient;
let editor: ContainerdEditor;
let leases: ContainerdLeases;
let keeper: ImageKeeper;

beforeAll(async () => {
  node = await startContainerd(scope(), { name: 'keeper' });
  filler = new ContainerdFiller(node.socketPath);
  scope().defer(() => filler.close());
}, startTimeoutMs);

beforeEach(() => {
  connection = new ContainerdConnection({ socketPath: node.socketPath });
  client = new ContainerdClient(connection);
  editor = new ContainerdEditor(connection);
  leases = new ContainerdLeases(connection);
  const store = new ContainerdStore({}, { connection, log: silentLogger });
  const manifests = new StoredManifests({}, { store });
  keeper = new ImageKeeper(
    {},
    {
      editor,
      manifests,
      finder: new ManifestFinder({}, { client, manifests, clock: systemClock }),
      metrics: createKeeperMetrics(new Registry()),
      log: silentLogger,
      clock: systemClock,
    },
  );
});

afterEach(async () => {
  await keeper.stop();
  connection.close();
});

/** An image as a pull with discard leaves it: nothing but its config is referred to. */
async function addImage(format: 'oci' | 'docker'): Promise<Image> {
  const image = await buildImage({
    directory: scope().directory,
    format,
    layers: [{ randomBytes: 1000, seed: randomBytes(8).toString('hex') }, { randomBytes: 10 }],
  });
  await filler.addBlob(image.manifest);
  const config = image.blobs[0]!.digest;
  await editor.updateLabels(image.digest as Digest, { set: { [`${prefix}config`]: config } });
  return image;
}

async function references(digest: string): Promise<Record<string, string>> {
  const labels = (await editor.labels(digest as Digest)) ?? {};
  const found = Object.entries(labels).filter(([key]) => key.startsWith(prefix));
  return Object.fromEntries(found.map(([key, value]) => [key.slice(prefix.length), value]));
}

describe.each(['oci', 'docker'] as const)('ImageKeeper, with an image of %s', (format) => {
  it('finds the image of a layer, also while there is no image record', async () => {
    const image = await addImage(format);
    const [config, first, second] = image.blobs.map(({ digest }) => digest) as Digest[];
    await keeper.keep({ digest: first!, images: [] });
    expect(await references(image.digest)).toEqual({ config, 'l.0': first, 'l.1': second });
  });

  it('restores the reference from an index, and unkeep takes all of it away', async () => {
    const image = await addImage(format);
    const index = buildIndex([image], { format });
    await filler.addBlob(index.manifest);
    const digest = image.blobs[1]!.digest as Digest;
    const passed = { manifest: image.digest as Digest, indexes: [index.digest as Digest] };
    expect(await keeper.keep({ digest, images: [passed] })).toBe(3);
    expect(await references(index.digest)).toEqual({ 'm.0': image.digest });

    const unkept: string[] = [];
    const parts = { client, editor, leases };
    for await (const one of unkeep({ dryRun: false }, parts)) unkept.push(one.digest);
    expect(unkept).toEqual(expect.arrayContaining([image.digest, index.digest]));
    expect(await references(index.digest)).toEqual({});
    expect(await references(image.digest)).toEqual({ config: image.blobs[0]!.digest });
    for await (const one of unkeep({ dryRun: false }, parts)) expect.unreachable(one.digest);
  });
});
