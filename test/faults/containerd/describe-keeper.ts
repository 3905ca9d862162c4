import { beforeAll, describe, expect, test } from 'vitest';
import type { ContainerdVersion } from '../../support/containerd-version.ts';
import { blobsOf, KeeperScene, type KeeperImage } from '../../support/keeper-scene.ts';
import { suiteScope } from '../../support/test-scope.ts';

const reference = 'containerd.io/gc.ref.content.';

/**
 * Tests that layers are kept on one containerd version that is told to discard them.
 *
 * @param version the packaged one unless told
 */
export function describeKeeper(version?: ContainerdVersion): void {
  const scope = suiteScope(`keeper-${version?.name ?? 'packaged'}`);
  let scene: KeeperScene;
  let app: KeeperImage;
  let sibling: KeeperImage;
  let lost: KeeperImage;
  let whole: KeeperImage;

  describe(`the keeper on containerd ${version?.name ?? 'as packaged'}`, () => {
    beforeAll(async () => {
      scene = await KeeperScene.start(scope(), version === undefined ? {} : { version });
      app = await scene.pushIndex('app');
      sibling = await scene.pushDocker('sibling');
      lost = await scene.pushIndex('lost');
      whole = await scene.pushIndex('whole');
      await scene.kept.containerd.pull(app.reference);
      await scene.kept.containerd.pull(sibling.reference);
      await scene.plain.containerd.pull(lost.reference);
      await scene.ordinary.containerd.pull(whole.reference);
    });

    test('keeps every blob although containerd is told to discard layers', async () => {
      const { kept } = scene;
      expect(await scene.left(kept, blobsOf(app))).toEqual(blobsOf(app));
      expect(await scene.left(kept, blobsOf(sibling))).toEqual(blobsOf(sibling));
      const labels = await scene.labels(kept, app.manifest);
      expect(app.layers.map((_, position) => labels[`${reference}l.${position}`])).toEqual(
        app.layers,
      );
      expect(labels[`${reference}config`]).toBe(app.config);
      expect(await scene.mark(kept, app.manifest)).toBe('l.0-2');
      expect(await scene.mark(kept, app.index!)).toBeUndefined();
      expect(await scene.counter(kept, 'salvor_agent_keeper_labels_restored_total')).toBe(6);
    });

    test('changes no label where containerd keeps layers by itself', async () => {
      const { ordinary } = scene;
      expect(await scene.left(ordinary, blobsOf(whole))).toEqual(blobsOf(whole));
      for (const digest of [whole.index!, whole.manifest]) {
        expect(await scene.mark(ordinary, digest)).toBeUndefined();
      }
      const labels = await scene.labels(ordinary, whole.manifest);
      // The same ones as the keeper's, so that nothing would change if it were not told any more.
      expect(
        Object.keys(labels)
          .filter((key) => key.startsWith(reference))
          .sort(),
      ).toEqual(['config', 'l.0', 'l.1', 'l.2'].map((end) => reference + end));
      const complete = 'salvor_agent_keeper_images_total{result="complete"}';
      expect(await scene.counter(ordinary, complete)).toBeGreaterThan(0);
      expect(await scene.counter(ordinary, 'salvor_agent_keeper_labels_restored_total')).toBe(0);
    });

    test('serves a new node everything once the upstream is dead', async () => {
      const { fresh, plain } = scene;
      expect(await scene.left(plain, lost.layers)).toEqual([]);
      await scene.upstream.kill('SIGKILL');

      await fresh.containerd.pull(app.reference);
      for (const digest of blobsOf(app)) await fresh.containerd.verifyBlob(digest);
      expect(await fresh.containerd.isUnpacked(app.reference)).toBe(true);
      // Without the keeper the same image cannot be had.
      await expect(fresh.containerd.pull(lost.reference)).rejects.toThrow();
    });

    test('lets go of an image that is removed, and of nothing else', async () => {
      const { kept } = scene;
      await kept.containerd.removeImage(app.config);
      const [base, ...own] = app.layers;
      expect(await scene.left(kept, [...own, app.config, app.manifest, app.index!])).toEqual([]);
      expect(base).toBe(sibling.layers[0]);
      expect(await scene.left(kept, blobsOf(sibling))).toEqual(blobsOf(sibling));
    });

    test('unkeep leaves what there would be without Salvor', async () => {
      const { kept } = scene;
      const told = await scene.unkeep(kept, '--dry-run');
      expect(told).toContain(`${sibling.manifest}: would remove ${reference}l.0 `);
      expect(await scene.left(kept, blobsOf(sibling))).toEqual(blobsOf(sibling));

      expect(await scene.unkeep(kept)).toMatch(/^3 labels of 1 manifests .* removed$/m);
      const labels = await scene.labels(kept, sibling.manifest);
      expect(Object.keys(labels).filter((key) => key.startsWith(reference))).toEqual([
        `${reference}config`,
      ]);
      expect(await scene.mark(kept, sibling.manifest)).toBeUndefined();
      const held = new Set(await kept.containerd.blobs());
      expect(blobsOf(sibling).filter((digest) => held.has(digest))).toEqual([
        sibling.manifest,
        sibling.config,
      ]);
      expect(await scene.unkeep(kept)).toBe('Nothing is kept in the namespace k8s.io\n');
    });
  });
}
