import { describe, expect, test } from 'vitest';
import { Inventories } from '../../../../src/agent/inventory/inventories.ts';
import { Observations } from '../../../../src/agent/observations.ts';
import { StoreUnavailableError } from '../../../../src/agent/store.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';
import {
  formatPlatform,
  platformState,
  type NodeInventory,
} from '../../../../src/rpc/inventory.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { amd64, arm64, MemoryStore } from './memory-store.ts';

const name = 'registry.test/team/app:1';

function scene(store = new MemoryStore()) {
  const clock = new FakeClock();
  const corrupt = new Set<Digest>();
  const requested: Digest[] = [];
  const observations = new Observations({ maxNames: 10 });
  const inventories = new Inventories(
    { node: 'node-1', maxAgeMs: 1000 },
    {
      store,
      integrity: {
        stateOf: ({ digest }) => (corrupt.has(digest) ? 'corrupt' : 'verified'),
        request: (digest) => void requested.push(digest),
      },
      observations,
      clock,
    },
  );
  return { store, clock, corrupt, requested, observations, inventories };
}

/** What of an image's target is there, platform by platform. */
function states(inventory: NodeInventory, target: Digest): string[] {
  return (inventory.trees.get(target)?.platforms ?? []).map((tree) => {
    const { state, missing } = platformState(tree, inventory.blobs);
    return `${formatPlatform(tree.platform)}: ${state}, ${missing.length} missing`;
  });
}

describe('Inventories', () => {
  test('Inventories walk an index to each platform, and past attestations', async () => {
    const { store, inventories } = scene();
    const here = store.addManifest('here');
    const elsewhere = store.addManifest('elsewhere', { platform: arm64 });
    const proof = store.addManifest('proof');
    const index = store.addIndex([
      { ...here.target, platform: amd64 },
      { ...elsewhere.target, platform: arm64 },
      { ...proof.target, platform: { os: 'unknown', architecture: 'unknown' } },
    ]);
    store.name(name, index);
    store.blobsByDigest.delete(elsewhere.target.digest);
    const inventory = await inventories.current();
    expect(states(inventory, index.digest)).toEqual([
      'linux/amd64: complete, 0 missing',
      'linux/arm64: index-only, 1 missing',
    ]);
    const [tree] = inventory.trees.get(index.digest)!.platforms;
    expect(tree?.parts.map(({ role }) => role)).toEqual([
      'index',
      'manifest',
      'config',
      'layer',
      'layer',
    ]);
  });

  test('Inventories take the platform from the config where the index names none', async () => {
    const { store, inventories } = scene();
    const { target } = store.addManifest('plain', { platform: arm64 });
    const index = store.addIndex([target]);
    store.name(name, target);
    store.name('registry.test/team/app:index', index);
    const inventory = await inventories.current();
    for (const digest of [target.digest, index.digest]) {
      expect(states(inventory, digest)).toEqual(['linux/arm64: complete, 0 missing']);
      expect(inventory.trees.get(digest)?.platforms[0]?.isDeclared).toBe(false);
    }
  });

  test('Inventories name the blobs that a partial image lacks, wrong sizes and wrong bytes included', async () => {
    const { store, corrupt, inventories } = scene();
    const image = store.addManifest('partial', { layers: 4 });
    store.name(name, image.target);
    const [gone, short, wrong] = image.layers.map(({ digest }) => digest);
    store.blobsByDigest.delete(gone!);
    store.blobsByDigest.set(short!, Buffer.from('x'));
    corrupt.add(wrong!);
    const inventory = await inventories.current();
    const [tree] = inventory.trees.get(image.target.digest)!.platforms;
    const { state, missing } = platformState(tree!, inventory.blobs);
    expect(state).toBe('partial');
    expect(missing.map(({ digest }) => digest)).toEqual([gone, short, wrong]);
  });

  test('Inventories let no odd record hide the others', async () => {
    const { store, inventories } = scene();
    const good = store.addManifest('good');
    const junk = store.add('no manifest', MEDIA_TYPE.ociManifest);
    const missing = { ...good.target, digest: digestOf(Buffer.from('missing')) };
    store.name('a:1', { ...good.target, digest: 'sha256:nonsense' });
    store.name('b:1', { ...good.target, mediaType: 'text/plain' });
    store.name('c:1', { ...good.target, mediaType: MEDIA_TYPE.dockerManifestV1Signed });
    store.name('d:1', junk);
    store.name('e:1', missing);
    store.name('f:1', { ...good.target, sizeBytes: -1 });
    store.name(name, good.target);
    const inventory = await inventories.current();
    const problems = inventory.images.map((image) => [image.name, image.problem ?? 'none']);
    expect(Object.fromEntries(problems)).toEqual({
      'a:1': expect.stringContaining('not a sha256 or sha512 digest') as unknown,
      'b:1': 'it points at text/plain, which is no image',
      'c:1': 'it is a schema 1 image, which cannot be served',
      'd:1': expect.stringContaining('is no manifest') as unknown,
      'e:1': expect.stringContaining('is not there') as unknown,
      'f:1': 'it points at something of -1 bytes',
      [name]: 'none',
    });
    expect(states(inventory, good.target.digest)).toEqual(['linux/amd64: complete, 0 missing']);
  });

  test('Inventories say so when a record and the file differ in size', async () => {
    const { store, inventories } = scene();
    const { target } = store.addManifest('sized');
    store.name(name, { ...target, sizeBytes: target.sizeBytes + 1 });
    const { images } = await inventories.current();
    expect(images[0]?.problem).toContain(`has ${target.sizeBytes} bytes, not`);
  });

  test('Inventories take a manifest of wrong bytes for corrupt and have it looked at', async () => {
    const { store, requested, inventories } = scene();
    const { target } = store.addManifest('altered');
    store.name(name, target);
    const bytes = store.blobsByDigest.get(target.digest)!;
    store.blobsByDigest.set(target.digest, Buffer.alloc(bytes.length, 'x'));
    const inventory = await inventories.current();
    expect(inventory.images[0]?.problem).toContain('are not those that it names');
    expect(inventory.blobs.get(target.digest)?.isCorrupt).toBe(true);
    expect(requested).toEqual([target.digest]);
  });

  test('Inventories mark foreign layers, images in use and what nothing keeps', async () => {
    const { store, inventories } = scene();
    const image = store.addManifest('used', { layers: 1, urls: ['https://elsewhere.test/layer'] });
    store.name(name, image.target);
    store.name(`sha256:${'0'.repeat(64)}`, image.target);
    store.usedImages.add(`sha256:${'0'.repeat(64)}`);
    store.kept = new Set([image.target.digest, image.config.digest]);
    const inventory = await inventories.current();
    const parts = inventory.trees.get(image.target.digest)!.platforms[0]!.parts;
    expect(parts.map(({ isForeign }) => isForeign)).toEqual([false, false, true]);
    expect(inventory.images.map(({ isInUse }) => isInUse)).toEqual([true, true]);
    expect(parts.map(({ digest }) => inventory.blobs.get(digest)?.isKept)).toEqual([
      true,
      true,
      false,
    ]);
  });

  test('Inventories see discarded layers and lazy snapshotters from labels', async () => {
    const { store, inventories } = scene();
    const image = store.addManifest('lazy');
    store.name(name, image.target);
    expect((await inventories.current()).facts.discardsLayers).toBe(false);
    const config = 'containerd.io/gc.ref.content.config';
    store.labels.set(image.target.digest, { [config]: image.config.digest });
    store.labels.set(image.config.digest, { 'containerd.io/gc.ref.snapshot.stargz': 'sha256:1' });
    const { inventories: again } = scene(store);
    const inventory = await again.current();
    expect(inventory.facts.discardsLayers).toBe(true);
    const [tree] = inventory.trees.get(image.target.digest)!.platforms;
    expect(tree?.lazySnapshotter).toBe('stargz');
    store.labels.get(image.target.digest)!['containerd.io/gc.ref.content.l.0'] = 'sha256:1';
    expect((await scene(store).inventories.current()).facts.discardsLayers).toBe(false);
  });

  test('Inventories tell what the upstream confirmed, also of names that are not there', async () => {
    const { observations, inventories } = scene();
    const digest = digestOf(Buffer.from('seen'));
    const tag = { digest, mediaType: 'a/b', sizeBytes: 1, observedAtMs: 5 };
    observations.record('registry.test/seen:1', tag);
    const { facts, observed } = await inventories.current();
    expect(observed.get('registry.test/seen:1')).toEqual(tag);
    expect(facts.registriesSeen).toEqual(['registry.test']);
  });

  test('Inventories walk what a tag was confirmed to name as long as it stays, image or not', async () => {
    const { store, observations, inventories } = scene();
    const [stays, goes] = ['stays', 'goes'].map((seed) => store.addManifest(seed).target);
    for (const target of [stays!, goes!]) {
      observations.record(`registry.test/${target.digest.slice(-8)}:1`, {
        ...target,
        observedAtMs: 5,
      });
    }
    store.kept = new Set([stays!.digest]);
    const { images, trees } = await inventories.current();
    expect(images).toEqual([]);
    expect([...trees.keys()]).toEqual([stays!.digest]);
  });

  test('Inventories walk once for all who ask within a second, and anew after it', async () => {
    const { store, clock, inventories } = scene();
    store.name(name, store.addManifest('shared').target);
    const [first, second] = await Promise.all([inventories.current(), inventories.current()]);
    expect(second).toBe(first);
    clock.advance(999);
    expect(await inventories.current()).toBe(first);
    expect(store.counts).toEqual({ lists: 1, opens: 2 });
    clock.advance(1);
    expect(await inventories.current()).not.toBe(first);
    // The manifest cannot have changed.
    expect(store.counts).toEqual({ lists: 2, opens: 2 });
  });

  test('Inventories forget a walk that failed', async () => {
    const { store, inventories } = scene();
    store.failure = new StoreUnavailableError('containerd is away');
    await expect(inventories.current()).rejects.toThrow('containerd is away');
    store.failure = undefined;
    await expect(inventories.current()).resolves.toBeDefined();
  });

  test('Inventories end a walk when they are stopped', async () => {
    const { store, inventories } = scene();
    for (let n = 0; n < 50; n += 1) store.name(`${name}${n}`, store.addManifest(String(n)).target);
    const walk = inventories.current();
    inventories.stop();
    await expect(walk).rejects.toThrow('the agent stops');
  });

  test('Inventories leave others their turns while they walk a thousand images', async () => {
    const { store, clock, inventories } = scene();
    for (let n = 0; n < 1000; n += 1) {
      store.name(`registry.test/app-${n}:1`, store.addManifest(String(n)).target);
    }
    await inventories.current();
    clock.advance(2000);
    // All manifests are known now: only the walk's own pauses can let anybody else run.
    let turns = 0;
    let walking = true;
    const count = (): void => {
      turns += 1;
      if (walking) setImmediate(count);
    };
    setImmediate(count);
    const { trees } = await inventories.current();
    walking = false;
    expect(trees.size).toBe(1000);
    expect(turns).toBeGreaterThan(10);
  });
});
