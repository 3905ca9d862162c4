import { describe, expect, test } from 'vitest';

import { RuntimeImages } from '../../../../src/agent/keeper/runtime-images.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { goArchitecture } from '../../../../src/oci/manifest.ts';
import type { ImagePart, NodeInventory, PlatformTree } from '../../../../src/rpc/inventory.ts';

const digest = (name: string): Digest => digestOf(Buffer.from(name));
const here = { os: 'linux', architecture: goArchitecture(process.arch) };
const elsewhere = { os: 'linux', architecture: 'riscv64' };

function part(role: ImagePart['role'], name: string): ImagePart {
  return { role, digest: digest(name), sizeBytes: name.length, isForeign: false };
}

function platform(name: string, where: typeof here): PlatformTree {
  const parts = [
    part('index', 'index'),
    ...(['manifest', 'config', 'layer'] as const).map((role) => part(role, `${name} ${role}`)),
  ];
  const manifest = digest(`${name} manifest`);
  return { platform: where, isDeclared: true, manifest, parts, isRead: true };
}

const own = platform('own', here);
const other = platform('other', elsewhere);

function inventory(missing: readonly string[] = []): NodeInventory {
  const gone = new Set(missing.map(digest));
  const parts = [...own.parts, part('manifest', 'other manifest')];
  const target = { digest: digest('index'), mediaType: 'index', sizeBytes: 5 };
  const image = (name: string, recordedAtMs: number, isInUse = false) => ({
    ...{ name, isInUse, target: { ...target, recordedAtMs } },
  });
  const blob = { isVerified: true, isCorrupt: false, isKept: true };
  return {
    facts: {} as NodeInventory['facts'],
    blobs: new Map(
      parts
        .filter((each) => !gone.has(each.digest))
        .map((each) => [each.digest, { ...blob, sizeBytes: each.sizeBytes }]),
    ),
    images: [
      image('registry.test/app:v1', 1000),
      image(`registry.test/app@${digest('index')}`, 3000, true),
      image(digest('own config'), 2000),
      { name: 'odd', target: undefined, isInUse: false, problem: 'odd' },
    ],
    trees: new Map([
      [digest('index'), { root: digest('index'), ...target, platforms: [other, own] }],
    ]),
    observed: new Map(),
  };
}

function imagesOf(found: Promise<NodeInventory>, records: readonly string[] = []): RuntimeImages {
  const images = async () => records.map((target) => ({ target: { digest: target } })) as never;
  return new RuntimeImages({ client: { images }, inventory: () => found });
}

describe('RuntimeImages', () => {
  test('list gives one image for all names of a target, with what this platform needs', async () => {
    const found = await imagesOf(Promise.resolve(inventory())).list({});
    expect(found).toEqual([
      {
        target: digest('index'),
        names: ['registry.test/app:v1', `registry.test/app@${digest('index')}`],
        blobs: new Map(own.parts.map((each) => [each.digest, each.sizeBytes])),
        isComplete: true,
        isInUse: true,
        usedAtMs: 3000,
      },
    ]);
  });

  test('list says what is not complete, and what of it is there', async () => {
    const [image] = await imagesOf(Promise.resolve(inventory(['own layer']))).list({});
    expect(image?.isComplete).toBe(false);
    expect(image?.blobs.size).toBe(own.parts.length - 1);
  });

  test('list leaves a walk that takes long when its caller does', async () => {
    const walk = Promise.withResolvers<NodeInventory>();
    const left = new AbortController();
    const listed = imagesOf(walk.promise).list({ signal: left.signal });
    left.abort(new Error('stopped'));
    await expect(listed).rejects.toThrow('stopped');
    walk.resolve(inventory());
  });

  test('targets gives what can be understood of the records', async () => {
    const images = imagesOf(Promise.resolve(inventory()), [digest('index'), 'odd', digest('b')]);
    expect(await images.targets({})).toEqual(new Set([digest('index'), digest('b')]));
  });
});
