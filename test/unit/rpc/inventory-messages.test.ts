import { toBinary } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../src/oci/media-type.ts';
import { InventoryResponseSchema } from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { inventoryMessages, readInventory } from '../../../src/rpc/inventory-messages.ts';
import type { ImagePart, ImageTree, NodeInventory } from '../../../src/rpc/inventory.ts';

const digest = (text: string): Digest => digestOf(Buffer.from(text));
const part = (role: ImagePart['role'], text: string, isForeign = false): ImagePart => ({
  role,
  digest: digest(text),
  sizeBytes: text.length,
  isForeign,
});

function inventory(images: number): NodeInventory {
  const trees = Array.from({ length: images }, (_, n): ImageTree => {
    const above = [part('index', `i${n}`)];
    return {
      root: digest(`i${n}`),
      mediaType: MEDIA_TYPE.ociIndex,
      sizeBytes: 3,
      platforms: [
        {
          platform: { os: 'windows', architecture: 'amd64', variant: 'v2', osVersion: '10.0.1' },
          isDeclared: true,
          manifest: digest(`m${n}`),
          parts: [
            ...above,
            part('manifest', `m${n}`),
            part('config', `c${n}`),
            part('layer', `l${n}`),
            part('layer', 'shared', true),
          ],
          isRead: true,
          lazySnapshotter: 'nydus',
        },
        {
          platform: undefined,
          isDeclared: false,
          manifest: digest(`o${n}`),
          parts: [...above, part('manifest', `o${n}`)],
          isRead: false,
          problem: 'it is odd',
        },
      ],
    };
  });
  const broken = { ...trees[0]!, root: digest('broken'), platforms: [], problem: 'not there' };
  const blob = { sizeBytes: 3, isVerified: true, isCorrupt: false, isKept: true };
  return {
    facts: {
      node: 'node-1',
      store: 'containerd',
      runtimeVersion: '2.2.0',
      snapshotter: 'overlayfs',
      discardsLayers: true,
      warnings: [{ code: 'lazy_snapshotter', message: 'it is lazy' }],
      walkedAtMs: 1_700_000_000_123,
      registriesSeen: ['registry.test'],
    },
    blobs: new Map([
      [digest('shared'), blob],
      [digest('l0'), { ...blob, isVerified: false, isKept: false }],
      [digest('nobody asks for it'), { ...blob, isVerified: false, isCorrupt: true }],
    ]),
    images: trees.map(({ root }, n) => ({
      name: `registry.test/app:${n}`,
      target: { digest: root, mediaType: MEDIA_TYPE.ociIndex, sizeBytes: 3, recordedAtMs: n },
      isInUse: n % 2 === 0,
      ...(n === 1 ? { problem: 'odd' } : {}),
    })),
    trees: new Map([...trees, broken].map((tree) => [tree.root, tree])),
    observed: new Map([
      [
        'registry.test/app:1',
        { digest: digest('x'), mediaType: 'a/b', sizeBytes: 1, observedAtMs: 7 },
      ],
    ]),
  };
}

async function* stream<T>(messages: Iterable<T>): AsyncGenerator<T> {
  yield* messages;
}

describe('inventoryMessages', () => {
  test('inventoryMessages and readInventory are each the other way round', async () => {
    const original = inventory(3);
    const read = await readInventory(stream(inventoryMessages(original)));
    expect(read).toEqual(original);
  });

  test('inventoryMessages keeps every message small, however much there is', async () => {
    const original = inventory(5000);
    const messages = [...inventoryMessages(original)];
    const sizes = messages.map((message) => toBinary(InventoryResponseSchema, message).length);
    expect(Math.max(...sizes)).toBeLessThan(256 * 1024);
    expect((await readInventory(stream(messages))).trees.size).toBe(5001);
  });
});

describe('readInventory', () => {
  test('readInventory takes no stream for whole that ended early', async () => {
    const messages = [...inventoryMessages(inventory(2))];
    for (let length = 0; length < messages.length; length += 1) {
      await expect(readInventory(stream(messages.slice(0, length)))).rejects.toThrow(
        'the stream ended too early',
      );
    }
  });

  test('readInventory refuses references to blobs that were not listed', async () => {
    const messages = [...inventoryMessages(inventory(1))].filter(({ blobs }) => blobs.length === 0);
    await expect(readInventory(stream(messages))).rejects.toThrow('a blob is not listed');
  });
});
