import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DirectoryStore } from '../../../../src/agent/directory/directory-store.ts';
import type { BackfillJob } from '../../../../src/agent/keeper/backfill-plan.ts';
import { DirectoryRestore } from '../../../../src/agent/keeper/repair-directory.ts';
import { digestHex, digestOf } from '../../../../src/oci/digest.ts';

const bytes = Buffer.from('the right bytes');
const digest = digestOf(bytes);
const name = 'registry.test/app:1';
const job: BackfillJob = {
  digest,
  sizeBytes: bytes.byteLength,
  isManifest: false,
  damage: 'corrupt',
  repositories: [],
  isInUse: false,
  manifests: [],
};
const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined };

let path: string;
let file: string;
let store: DirectoryStore;

beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'salvor-repair-'));
  store = await DirectoryStore.open({ path, maxSizeBytes: 1_000_000 }, { log: quiet });
  const writer = await store.createWriter(digest);
  await writer?.write(bytes);
  await writer?.commit();
  await store.tag(name, { digest, mediaType: 'x/y', sizeBytes: bytes.byteLength, observedAtMs: 1 });
  file = join(path, 'blobs/sha256', digestHex(digest));
  await writeFile(file, 'the wrong bytes');
});

afterEach(async () => {
  await store.close();
  await rm(path, { recursive: true });
});

async function* right(): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function* broken(): AsyncGenerator<Uint8Array> {
  yield bytes.subarray(0, 4);
  throw new Error('gone');
}

describe('DirectoryRestore.restore', () => {
  test('puts right bytes in the place of wrong ones and leaves names alone', async () => {
    const before = await store.stat(digest);
    expect(await new DirectoryRestore({ store }).restore(job, right)).toBe('written');
    expect(await readFile(file)).toEqual(bytes);
    expect((await store.stat(digest))?.fingerprint).not.toBe(before?.fingerprint);
    expect(await store.resolve(name)).toMatchObject({ digest });
  });

  test('leaves what is there when the bytes do not come', async () => {
    const restore = new DirectoryRestore({ store }).restore(job, broken);
    await expect(restore).rejects.toThrow('gone');
    expect(await readFile(file, 'utf8')).toBe('the wrong bytes');
    expect(await readdir(join(path, 'ingest'))).toEqual([]);
  });

  test('says that the store has no room', async () => {
    const large = { ...job, sizeBytes: 2_000_000 };
    const restore = new DirectoryRestore({ store }).restore(large, right);
    await expect(restore).rejects.toMatchObject({ reason: 'refused' });
  });
});
