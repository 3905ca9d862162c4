import { access, readFile, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ContainerdConnection } from '../../../src/agent/containerd/containerd-connection.ts';
import { ContainerdEditor } from '../../../src/agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../../../src/agent/containerd/containerd-leases.ts';
import { ContainerdStore } from '../../../src/agent/containerd/containerd-store.ts';
import type { BackfillJob, Damage } from '../../../src/agent/keeper/backfill-plan.ts';
import { ContainerdRestore } from '../../../src/agent/keeper/repair-containerd.ts';
import { StoredManifests } from '../../../src/agent/keeper/stored-manifests.ts';
import { RestoreError } from '../../../src/agent/keeper/restore-error.ts';
import { parseDigest, type Digest } from '../../../src/oci/digest.ts';
import { ContainerdFiller } from '../../support/containerd-filler.ts';
import { startContainerd, type ContainerdNode } from '../../support/containerd-node.ts';
import { containerdVersion } from '../../support/containerd-version.ts';
import { startDockerRegistry, type DockerRegistry } from '../../support/docker-registry.ts';
import { buildImage, buildIndex, type Image } from '../../support/image.ts';
import { pushImage } from '../../support/push.ts';
import { suiteScope } from '../../support/test-scope.ts';

const quiet = { info: () => undefined, warn: () => undefined };
const repository = 'team/app';

/**
 * Tests on one containerd version how wrong and lost content is replaced.
 *
 * @param name of the version, such as "2.3"
 */
export function describeRepair(name: string): void {
  const scope = suiteScope(`repair-${name}`);
  let upstream: DockerRegistry;
  let node: ContainerdNode;
  let connection: ContainerdConnection;
  let editor: ContainerdEditor;
  let leases: ContainerdLeases;
  let restore: ContainerdRestore;
  let image: Image;
  let reference: string;

  /** Its index, manifest, config and layers. */
  const digests = (): Digest[] => {
    const child = image.children[0]!;
    return [image.digest, child.digest, ...child.blobs.map(({ digest }) => digest)].map(checked);
  };

  const bytesOf = async (digest: Digest): Promise<Buffer> => {
    for (const { digest: found, manifest, blobs } of [image, ...image.children]) {
      if (found === digest) return manifest;
      const blob = blobs.find((each) => each.digest === digest);
      if (blob !== undefined) return 'data' in blob ? blob.data : readFile(blob.path);
    }
    throw new Error(`Cannot find ${digest}`);
  };

  const repair = async (digest: Digest, damage: Damage): Promise<void> => {
    const bytes = await bytesOf(digest);
    const job: BackfillJob = {
      digest,
      sizeBytes: bytes.byteLength,
      isManifest: digest === image.digest || digest === image.children[0]!.digest,
      damage,
      repositories: [{ registry: upstream.host, repository }],
      isInUse: true,
      manifests: [],
    };
    async function* chunks(offset: number): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(offset);
    }
    await restore.restore(job, chunks, { signal: AbortSignal.timeout(20_000) });
  };

  const isOnDisk = (digest: string): Promise<boolean> =>
    access(node.blobPath(digest)).then(
      () => true,
      () => false,
    );

  beforeAll(async () => {
    upstream = await startDockerRegistry(scope(), { name: `repair-upstream-${name}` });
    const version = containerdVersion(name);
    node = await startContainerd(scope(), { name: `repair-${name}`, version });
    const built = await buildImage({
      directory: scope().directory,
      layers: [{ randomBytes: 100_000 }, { randomBytes: 2_000_000, seed: 'b' }],
    });
    image = buildIndex([built]);
    await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
    reference = `${upstream.host}/${repository}:v1`;
    await node.pull(reference);
    connection = new ContainerdConnection({ socketPath: node.socketPath });
    editor = new ContainerdEditor(connection);
    leases = new ContainerdLeases(connection);
    const store = new ContainerdStore({}, { connection, log: quiet });
    const manifests = new StoredManifests({}, { store });
    restore = new ContainerdRestore({ editor, leases, manifests, store, clock: Date });
  }, 120_000);

  afterAll(() => connection.close());

  describe(`content of containerd ${name}`, () => {
    test.each([
      ['an index', 0],
      ['a manifest', 1],
      ['a config', 2],
      ['a layer', 3],
    ])('is whole again when %s was wrong or lost, and everything else stays', async (_, which) => {
      const digest = digests()[which]!;
      const labels = await editor.labels(digest);
      const snapshots = await node.ctr(['snapshots', '--snapshotter', node.snapshotter, 'list']);

      const bytes = await bytesOf(digest);
      const wrong = Buffer.from(bytes.toReversed());
      await writeFile(node.blobPath(digest), wrong);
      await expect(node.verifyBlob(digest)).rejects.toThrow('Cannot trust');
      await repair(digest, 'corrupt');
      for (const each of digests()) await node.verifyBlob(each);
      expect(await editor.labels(digest)).toEqual(labels);

      await rm(node.blobPath(digest));
      await repair(digest, 'lost');
      for (const each of digests()) await node.verifyBlob(each);
      expect(await editor.labels(digest)).toEqual(labels);

      await collectGarbage();
      for (const each of digests()) await node.verifyBlob(each);
      expect(await node.ctr(['snapshots', '--snapshotter', node.snapshotter, 'list'])).toBe(
        snapshots,
      );
      expect(await node.isUnpacked(reference)).toBe(true);
      expect(await leases.list()).toEqual([]);
      expect(await node.ingests()).toEqual([]);
    });

    test('stays as it was when another namespace holds the same file', async () => {
      const digest = digests()[3]!;
      const labels = await editor.labels(digest);
      const other = new ContainerdFiller(node.socketPath, 'other');
      await other.addBlob(await bytesOf(digest));
      await writeFile(node.blobPath(digest), 'wrong');
      const failure = await repair(digest, 'corrupt').catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(RestoreError);
      expect((failure as RestoreError).reason).toBe('shared_file');
      expect(await editor.labels(digest)).toEqual(labels);
      expect(await isOnDisk(digest)).toBe(true);
      expect(await leases.list()).toEqual([]);

      await other.removeBlob(digest);
      other.close();
      await collectGarbage();
      await repair(digest, 'corrupt');
      await node.verifyBlob(digest);
    });

    test('is not touched when the bytes do not come', async () => {
      const digest = digests()[3]!;
      const labels = await editor.labels(digest);
      const job: BackfillJob = {
        digest,
        sizeBytes: (await bytesOf(digest)).byteLength,
        isManifest: false,
        damage: 'corrupt',
        repositories: [],
        isInUse: true,
        manifests: [],
      };
      const first = (await bytesOf(digest)).subarray(0, 1000);
      async function* chunks(): AsyncGenerator<Uint8Array> {
        yield first;
        throw new Error('gone');
      }
      const { signal } = new AbortController();
      await expect(restore.restore(job, chunks, { signal })).rejects.toThrow('gone');
      await node.verifyBlob(digest);
      expect(await editor.labels(digest)).toEqual(labels);
      await collectGarbage();
      expect(await node.ingests()).toEqual([]);
    });
  });

  async function collectGarbage(): Promise<void> {
    await leases.create('garbage', { flat: true });
    await leases.delete('garbage', { sync: true });
  }
}

function checked(text: string): Digest {
  const digest = parseDigest(text);
  if (!digest.ok) throw new Error(`Cannot use ${text}`);
  return digest.value;
}
