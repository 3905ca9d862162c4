import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdLeases } from '../../src/agent/containerd/containerd-leases.ts';
import { ContainerdStore } from '../../src/agent/containerd/containerd-store.ts';
import { DirectoryStore } from '../../src/agent/directory/directory-store.ts';
import { Inventories } from '../../src/agent/inventory/inventories.ts';
import { Observations } from '../../src/agent/observations.ts';
import type { Digest } from '../../src/oci/digest.ts';
import {
  formatPlatform,
  platformState,
  type InventoryImage,
  type NodeInventory,
} from '../../src/rpc/inventory.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { ContainerdFiller } from '../support/containerd-filler.ts';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex, hostPlatform, type Image } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('inventory');
const otherPlatform = { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' };
const here = `linux/${hostPlatform.architecture}`;

let registry: DockerRegistry;
let node: ContainerdNode;
let connection: ContainerdConnection;
let store: ContainerdStore;
let pushed = 0;

beforeAll(async () => {
  registry = await startDockerRegistry(scope());
  node = await startContainerd(scope(), { name: 'inventory' });
  connection = new ContainerdConnection({ socketPath: node.socketPath });
  store = new ContainerdStore({}, { connection, log: silentLogger });
}, 60_000);

afterAll(() => store.close());

/** A walk that knows nothing of earlier ones. */
async function inventory(
  of: ConstructorParameters<typeof Inventories>[1]['store'] = store,
): Promise<NodeInventory> {
  return new Inventories(
    { node: 'node-1' },
    {
      store: of,
      integrity: { stateOf: () => 'unverified', request: () => undefined },
      observations: new Observations({ maxNames: 10 }),
      clock: { now: Date.now },
    },
  ).current();
}

/** Pulls an image with two layers for this platform, and one for another that stays away. */
async function pull(): Promise<{ name: string; index: Image; image: Image }> {
  pushed += 1;
  const layers = [1, 2].map((n) => ({ randomBytes: 5000, seed: `inventory-${pushed}-${n}` }));
  const { directory } = scope();
  const image = await buildImage({ directory, layers });
  const other = await buildImage({ directory, layers, platform: otherPlatform });
  const index = buildIndex([other, image]);
  const repository = `team/app-${pushed}`;
  await pushImage({ baseUrl: registry.url, repository, tag: 'v1' }, index);
  const name = `${registry.host}/${repository}:v1`;
  await node.pull(name);
  // The collection that follows a pull must not come when a test has taken labels away.
  const leases = new ContainerdLeases(connection);
  await leases.create('sweep', { flat: true });
  await leases.delete('sweep', { sync: true });
  return { name, index, image };
}

function named(of: NodeInventory, name: string): InventoryImage {
  const image = of.images.find((one) => one.name === name);
  if (image === undefined) throw new Error(`Cannot find ${name} in the inventory`);
  return image;
}

/** Each platform with its state and how many of its blobs are missing, or not kept. */
function states(of: NodeInventory, name: string): string[] {
  const tree = of.trees.get(named(of, name).target!.digest);
  return (tree?.platforms ?? []).map((platform) => {
    const { state, missing } = platformState(platform, of.blobs);
    const passing = platform.parts.filter(({ digest }) => of.blobs.get(digest)?.isKept === false);
    const counts = `${missing.length} missing, ${passing.length} passing`;
    return `${formatPlatform(platform.platform)}: ${state}, ${counts}`;
  });
}

const complete = `${here}: complete, 0 missing, 0 passing`;

describe('Inventories of a real containerd', () => {
  it('Inventories see which platform of an index is there', async () => {
    const { name } = await pull();
    const found = await inventory();
    expect(states(found, name)).toEqual([
      `${otherPlatform.os}/${otherPlatform.architecture}: index-only, 1 missing, 0 passing`,
      complete,
    ]);
    expect(found.facts).toMatchObject({
      store: 'containerd',
      snapshotter: node.snapshotter,
      discardsLayers: false,
      warnings: [],
    });
    expect(found.facts.runtimeVersion).toBe(await node.runtimeVersion());
  });

  it('Inventories count imported images, whatever they are called', async () => {
    const { name } = await pull();
    const archive = join(scope().directory, 'imported.tar');
    await node.ctr(['images', 'export', archive, name]);
    await node.removeImage(name);
    await node.ctr(['images', 'import', '--no-unpack', archive]);
    await node.ctr(['images', 'tag', name, 'just-a-name']);
    const found = await inventory();
    expect(states(found, name).at(-1)).toBe(complete);
    expect(states(found, 'just-a-name').at(-1)).toBe(complete);
  });

  it('Inventories name the blob whose file is gone', async () => {
    const { name, image } = await pull();
    const lost = image.blobs[2]!.digest;
    await rm(node.blobPath(lost));
    const found = await inventory();
    const tree = found.trees.get(named(found, name).target!.digest)!.platforms[1]!;
    const { state, missing } = platformState(tree, found.blobs);
    expect([state, missing.map(({ digest }) => digest)]).toEqual(['partial', [lost]]);
  });

  it('Inventories mark what no label keeps, and lack it after garbage collection', async () => {
    const { name, image } = await pull();
    const label = 'containerd.io/gc.ref.content.l.1';
    await node.ctr(['content', 'label', image.digest, `${label}=`]);
    expect(states(await inventory(), name).at(-1)).toBe(`${here}: complete, 0 missing, 1 passing`);
    const { name: another } = await pull();
    await node.removeImage(another);
    await waitFor(
      async () =>
        states(await inventory(), name).at(-1) === `${here}: partial, 1 missing, 0 passing`,
      { what: 'garbage collection' },
    );
  });

  it('Inventories take what a lease or another namespace keeps for kept', async () => {
    const { name, image } = await pull();
    const layers = image.blobs.slice(1).map(({ digest }) => digest);
    const labels = layers.map((_, n) => `containerd.io/gc.ref.content.l.${n}=`);
    const leases = new ContainerdLeases(connection);
    await node.ctr(['content', 'label', image.digest, ...labels]);
    expect(states(await inventory(), name).at(-1)).toBe(`${here}: complete, 0 missing, 2 passing`);
    await leases.create('inventory-test', { flat: true, expiresAtMs: Date.now() + 600_000 });
    await leases.addResource('inventory-test', { type: 'content', id: layers[0]! });
    expect(states(await inventory(), name).at(-1)).toBe(`${here}: complete, 0 missing, 1 passing`);
    const elsewhere = new ContainerdFiller(node.socketPath, 'elsewhere');
    scope().defer(() => elsewhere.close());
    const { digest, size } = image.blobs[2]!;
    await elsewhere.addImage('registry.test/kept:1', { digest, size, mediaType: 'a/b' });
    expect(states(await inventory(), name).at(-1)).toBe(complete);
    await leases.delete('inventory-test');
  });

  it('Inventories walk images without any label, and past records that make no sense', async () => {
    const filler = new ContainerdFiller(node.socketPath);
    scope().defer(() => filler.close());
    const { directory } = scope();
    const image = await buildImage({ directory, layers: [{ randomBytes: 10, seed: 'plain' }] });
    await filler.addBlob(image.manifest);
    await filler.addBlob((image.blobs[0] as unknown as { data: Buffer }).data);
    const { digest, mediaType, size } = image;
    await filler.addImage('registry.test/plain:1', { digest, mediaType, size });
    const junk = Buffer.from('no manifest');
    const junkDigest = await filler.addBlob(junk);
    const odd = { digest: junkDigest, mediaType, size: junk.length };
    await filler.addImage('registry.test/junk:1', odd);
    await filler.addImage('registry.test/text:1', { ...odd, mediaType: 'text/plain' });
    await filler.addImage('registry.test/sha384:1', { ...odd, digest: `sha384:${'a'.repeat(96)}` });
    const found = await inventory();
    expect(states(found, 'registry.test/plain:1')).toEqual([
      `${here}: partial, 1 missing, 0 passing`,
    ]);
    for (const name of ['junk', 'text', 'sha384']) {
      expect(named(found, `registry.test/${name}:1`).problem, name).toBeTruthy();
    }
  });

  it('Inventories know which images containers were made from', async () => {
    const { name } = await pull();
    expect(named(await inventory(), name).isInUse).toBe(false);
    await node.ctr([
      'containers',
      'create',
      '--snapshotter',
      node.snapshotter,
      name,
      'inventory-1',
    ]);
    const found = await inventory();
    expect(named(found, name).isInUse).toBe(true);
    expect(found.images.filter(({ isInUse }) => isInUse).length).toBeLessThan(4);
    await node.ctr(['containers', 'delete', 'inventory-1']);
  });

  it('Inventories see that layers are discarded', async () => {
    const discarding = await startContainerd(scope(), {
      name: 'inventory-discards',
      discardUnpackedLayers: true,
    });
    const { name } = await pull();
    await discarding.pull(name);
    const other = new ContainerdStore(
      {},
      {
        connection: new ContainerdConnection({ socketPath: discarding.socketPath }),
        log: silentLogger,
      },
    );
    try {
      await waitFor(
        async () =>
          states(await inventory(other), name)
            .at(-1)
            ?.includes('partial'),
        {
          what: 'the end of the layers',
        },
      );
      expect((await inventory(other)).facts.discardsLayers).toBe(true);
    } finally {
      await other.close();
    }
  });
});

describe('Inventories of a directory', () => {
  it('Inventories of a directory have its names, and what they lead to', async () => {
    const path = join(scope().directory, 'layout');
    const directory = await DirectoryStore.open({ path, maxSizeBytes: 1e9 }, { log: silentLogger });
    const image = await buildImage({
      directory: scope().directory,
      layers: [{ randomBytes: 10, seed: 'directory' }],
    });
    const digest = image.digest as Digest;
    const writer = await directory.createWriter(digest);
    await writer!.write(image.manifest);
    await writer!.commit();
    const tag = { digest, mediaType: image.mediaType, sizeBytes: image.size, observedAtMs: 1000 };
    await directory.tag('registry.test/app:1', tag);
    const found = await inventory(directory);
    expect(named(found, 'registry.test/app:1').target?.observedAtMs).toBe(1000);
    // Without its config there is no saying what it runs on.
    expect(states(found, 'registry.test/app:1')).toEqual([
      'unknown: partial, 2 missing, 0 passing',
    ]);
    expect(found.facts).toMatchObject({ store: 'directory', warnings: [] });
    await directory.close();
  });
});
