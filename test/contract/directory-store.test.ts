import { randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { DirectoryStore } from '../../src/agent/directory/directory-store.ts';
import type { DirectoryStoreOptions } from '../../src/agent/directory/directory-store.ts';
import { StoreUnavailableError } from '../../src/agent/store.ts';
import { digestHex, digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../src/oci/media-type.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { makeWorkDirectory, removeDirectory } from '../support/work-dir.ts';
import { addManifest, collect, contentStoreContract, nameList } from './content-store.contract.ts';

contentStoreContract('DirectoryStore', {
  kind: 'directory',
  async open() {
    const path = await makeWorkDirectory('directory-store');
    const store = await DirectoryStore.open(
      { path, maxSizeBytes: 256 * 1024 * 1024 },
      { log: silentLogger },
    );
    return {
      store,
      addBlob: (bytes) => put(store, bytes),
      removeBlob: (digest) => rm(blobPath(path, digest)),
      addName: (name, target) => store.tag(name, { ...target, observedAtMs: Date.now() }),
      // A name that is none is refused at the door; files are what others can leave behind.
      async addOddRecords(target) {
        await writeFile(join(path, 'blobs', 'sha256', 'README'), 'hello');
        await mkdir(join(path, 'blobs', 'sha256', 'f'.repeat(64)));
        await symlink('nowhere', join(path, 'blobs', 'sha256', 'e'.repeat(64)));
        const name = `registry.test/a@${target.digest}`;
        const observation = { ...target, observedAtMs: 0 };
        await expect(store.tag(name, observation)).rejects.toThrow(/^Cannot tag/);
        return [name];
      },
      async beginWrite(digest, bytes) {
        const writer = await store.createWriter(digest);
        await writer!.write(bytes);
        return () => writer!.commit();
      },
      async close() {
        await store.close();
        await removeDirectory(path);
      },
    };
  },
});

let path: string;
let stores: DirectoryStore[];

beforeEach(async () => {
  path = await makeWorkDirectory('directory-store');
  stores = [];
});

afterEach(async () => {
  for (const store of stores) await store.close();
  await removeDirectory(path);
});

async function open(
  options: Partial<DirectoryStoreOptions> & { now?: () => number; warnings?: string[] } = {},
): Promise<DirectoryStore> {
  const { now, warnings = [], ...limits } = options;
  const log = { ...silentLogger, warn: (_: unknown, message: string) => warnings.push(message) };
  const store = await DirectoryStore.open(
    { path, maxSizeBytes: 10_000, ...limits },
    { log, ...(now === undefined ? {} : { now }) },
  );
  stores.push(store);
  return store;
}

async function reopen(store: DirectoryStore): Promise<DirectoryStore> {
  await store.close();
  return open();
}

async function put(store: DirectoryStore, bytes: Uint8Array): Promise<void> {
  const writer = await store.createWriter(digestOf(bytes), { sizeBytes: bytes.byteLength });
  if (writer === undefined) return;
  await writer.write(bytes);
  await writer.commit();
}

function blobPath(root: string, digest: Digest): string {
  return join(root, 'blobs', digest.slice(0, digest.indexOf(':')), digestHex(digest));
}

async function filesIn(directory: string): Promise<string[]> {
  return readdir(join(path, directory));
}

describe('DirectoryStore writer', () => {
  it('keeps a blob that came in pieces, and not before the commit', async () => {
    const store = await open();
    const bytes = randomBytes(3000);
    const digest = digestOf(bytes);
    const writer = await store.createWriter(digest, { sizeBytes: 3000 });
    for (const start of [0, 1000, 2000]) await writer!.write(bytes.subarray(start, start + 1000));
    expect(await store.stat(digest)).toBeUndefined();
    await writer!.commit();
    expect(await store.stat(digest)).toMatchObject({ sizeBytes: 3000 });
    expect(await filesIn('ingest')).toEqual([]);
    expect((await readFile(blobPath(path, digest))).equals(bytes)).toBe(true);
  });

  it('keeps the order of writes that nobody waited for', async () => {
    const store = await open();
    const bytes = randomBytes(3000);
    const writer = await store.createWriter(digestOf(bytes));
    const parts = [0, 1000, 2000].map((start) => bytes.subarray(start, start + 1000));
    await Promise.all(parts.map((part) => writer!.write(part)));
    await writer!.commit();
    expect((await readFile(blobPath(path, digestOf(bytes)))).equals(bytes)).toBe(true);
  });

  it('takes sha512 as well', async () => {
    const store = await open();
    const bytes = randomBytes(10);
    const digest = digestOf(bytes, 'sha512');
    const writer = await store.createWriter(digest);
    await writer!.write(bytes);
    await writer!.commit();
    expect(await collect(store.blobs())).toMatchObject([{ digest, sizeBytes: 10 }]);
  });

  it('refuses bytes that the digest does not name, and leaves nothing', async () => {
    const store = await open();
    const digest = digestOf(Buffer.from('right'));
    const writer = await store.createWriter(digest);
    await writer!.write(Buffer.from('wrong'));
    await expect(writer!.commit()).rejects.toThrow(/not those that the digest names/);
    expect(await store.stat(digest)).toBeUndefined();
    expect(await filesIn('ingest')).toEqual([]);
  });

  it('refuses fewer and more bytes than announced', async () => {
    const store = await open();
    const bytes = Buffer.from('right');
    const short = await store.createWriter(digestOf(bytes), { sizeBytes: 6 });
    await short!.write(bytes);
    await expect(short!.commit()).rejects.toThrow(/5 of the announced 6 bytes/);
    const long = await store.createWriter(digestOf(bytes), { sizeBytes: 4 });
    await expect(long!.write(bytes)).rejects.toThrow(/more than the announced 4 bytes/);
    await expect(long!.write(bytes)).rejects.toThrow(/it has ended/);
    expect(await filesIn('ingest')).toEqual([]);
  });

  it('is not given for a blob that is held, or too large, or when too many write', async () => {
    const store = await open({ maxWriters: 1 });
    const bytes = randomBytes(10);
    await put(store, bytes);
    expect(await store.createWriter(digestOf(bytes))).toBeUndefined();
    const other = digestOf(Buffer.from('other'));
    expect(await store.createWriter(other, { sizeBytes: 10_001 })).toBeUndefined();
    const writers = await Promise.all([store.createWriter(other), store.createWriter(other)]);
    expect(writers.filter((writer) => writer !== undefined)).toHaveLength(1);
  });

  it('keeps the first of two that write the same blob', async () => {
    const store = await open();
    const bytes = randomBytes(100);
    const digest = digestOf(bytes);
    const first = await store.createWriter(digest);
    const second = await store.createWriter(digest);
    await Promise.all([first!.write(bytes), second!.write(bytes)]);
    await first!.commit();
    const info = await store.stat(digest);
    await second!.commit();
    expect(await store.stat(digest)).toEqual(info);
    expect(await filesIn('ingest')).toEqual([]);
  });

  it('leaves nothing after an abort, a close and a crash', async () => {
    const store = await open();
    const aborted = await store.createWriter(digestOf(Buffer.from('a')));
    await aborted!.abort();
    await aborted!.abort();
    expect(await filesIn('ingest')).toEqual([]);
    const closed = await store.createWriter(digestOf(Buffer.from('b')));
    await store.close();
    await expect(closed!.write(Buffer.from('b'))).rejects.toThrow();
    expect(await filesIn('ingest')).toEqual([]);
    await writeFile(join(path, 'ingest', 'left'), 'half');
    await open();
    expect(await filesIn('ingest')).toEqual([]);
  });
});

describe('DirectoryStore bound', () => {
  it('makes room by removing what was used longest ago', async () => {
    const store = await open({ maxSizeBytes: 3000 });
    const blobs = [0, 1, 2, 3].map(() => randomBytes(1000));
    const [first, second, third, fourth] = blobs.map((bytes) => digestOf(bytes));
    for (const bytes of blobs.slice(0, 3)) await put(store, bytes);
    await store.stat(first!);
    await put(store, blobs[3]!);
    expect(await store.stat(second!)).toBeUndefined();
    const held = (await collect(store.blobs())).map(({ digest }) => digest);
    expect(held.sort()).toEqual([first!, third!, fourth!].sort());
  });

  it('counts what is being written, and never removes that', async () => {
    const store = await open({ maxSizeBytes: 3000 });
    const old = randomBytes(1500);
    await put(store, old);
    const bytes = randomBytes(2000);
    const writer = await store.createWriter(digestOf(bytes));
    await writer!.write(bytes.subarray(0, 1500));
    expect(await store.stat(digestOf(old))).toBeDefined();
    await writer!.write(bytes.subarray(1500));
    expect(await store.stat(digestOf(old))).toBeUndefined();
    const other = randomBytes(1500);
    const second = await store.createWriter(digestOf(other));
    await expect(second!.write(other)).rejects.toThrow(/no more room/);
    await writer!.commit();
    expect(await store.stat(digestOf(bytes))).toMatchObject({ sizeBytes: 2000 });
  });

  it('gives the room of aborted and failed writes back', async () => {
    const store = await open({ maxSizeBytes: 1000 });
    for (let round = 0; round < 3; round += 1) {
      const aborted = await store.createWriter(digestOf(Buffer.from('aborted')));
      await aborted!.write(randomBytes(900));
      await aborted!.abort();
      const wrong = await store.createWriter(digestOf(Buffer.from('wrong')));
      await wrong!.write(randomBytes(900));
      await expect(wrong!.commit()).rejects.toThrow();
      const large = await store.createWriter(digestOf(Buffer.from('large')));
      await expect(large!.write(randomBytes(1001))).rejects.toThrow(/no more room/);
    }
    const bytes = randomBytes(1000);
    await put(store, bytes);
    expect(await store.stat(digestOf(bytes))).toBeDefined();
  });

  it('holds after opening, by the times of the files', async () => {
    const store = await open();
    const blobs = [0, 1, 2].map(() => randomBytes(1000));
    for (const bytes of blobs) await put(store, bytes);
    await store.close();
    const [first, second, third] = blobs.map((bytes) => digestOf(bytes));
    await utimes(blobPath(path, second!), 1000, 1000);
    await utimes(blobPath(path, first!), 3000, 1000);
    await utimes(blobPath(path, third!), 1000, 2000);
    const smaller = await open({ maxSizeBytes: 1000 });
    expect((await collect(smaller.blobs())).map(({ digest }) => digest)).toEqual([first]);
  });

  it('holds for the number of blobs', async () => {
    const store = await open({ maxBlobs: 2 });
    const blobs = [0, 1, 2].map(() => randomBytes(10));
    const [first, second, third] = blobs.map((bytes) => digestOf(bytes));
    for (const bytes of blobs.slice(0, 2)) await put(store, bytes);
    await store.stat(first!);
    await put(store, blobs[2]!);
    const held = (await collect(store.blobs())).map(({ digest }) => digest);
    expect(held.sort()).toEqual([first!, third!].sort());
    expect(await store.stat(second!)).toBeUndefined();
  });

  it('drops the names of what was removed', async () => {
    const store = await open({ maxSizeBytes: 1000 });
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    await store.tag('registry.test/a:1', { ...target, observedAtMs: 1000 });
    await put(store, randomBytes(1000));
    expect(await nameList(store)).toEqual([]);
    expect(await readFile(join(path, 'index.json'), 'utf8')).not.toContain('registry.test');
  });

  it('remove takes a blob and its names away', async () => {
    const store = await open();
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    await store.tag('registry.test/a:1', { ...target, observedAtMs: 1000 });
    expect(await store.remove(target.digest)).toBe(true);
    expect(await store.remove(target.digest)).toBe(false);
    expect(await store.stat(target.digest)).toBeUndefined();
    expect(await nameList(await reopen(store))).toEqual([]);
    expect(await readFile(join(path, 'index.json'), 'utf8')).not.toContain('registry.test');
  });
});

describe('DirectoryStore names', () => {
  const dayMs = 86_400_000;
  const now = Date.UTC(2026, 5, 1);

  it('survive a restart, with their times', async () => {
    const store = await open({ now: () => now });
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    await store.tag('registry.test/a:1', { ...target, observedAtMs: now - dayMs });
    const record = await (await reopen(store)).resolve('registry.test/a:1');
    expect(record).toEqual({
      name: 'registry.test/a:1',
      ...target,
      recordedAtMs: now,
      observedAtMs: now - dayMs,
    });
  });

  it('keep the newest observation, but not one from the future', async () => {
    const store = await open({ now: () => now });
    const add = { addBlob: (bytes: Uint8Array) => put(store, bytes) };
    const targets = [await addManifest(add), await addManifest(add), await addManifest(add)];
    const [old, newer, last] = targets as [
      (typeof targets)[0],
      (typeof targets)[0],
      (typeof targets)[0],
    ];
    await store.tag('registry.test/a:1', { ...newer, observedAtMs: now - dayMs });
    await store.tag('registry.test/a:1', { ...old, observedAtMs: now - 2 * dayMs });
    expect(await store.resolve('registry.test/a:1')).toMatchObject({ digest: newer.digest });
    await store.tag('registry.test/a:1', { ...old, observedAtMs: now + dayMs });
    await store.tag('registry.test/a:1', { ...last, observedAtMs: now });
    expect(await store.resolve('registry.test/a:1')).toMatchObject({ digest: last.digest });
  });

  it('have a bound', async () => {
    const store = await open({ maxNames: 2 });
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    for (const tag of ['1', '2', '1', '3']) {
      await store.tag(`registry.test/a:${tag}`, { ...target, observedAtMs: 1000 });
    }
    expect(await nameList(store)).toEqual(['registry.test/a:1', 'registry.test/a:3']);
  });

  it('are all there after many were written at once', async () => {
    const store = await open();
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    const names = Array.from({ length: 50 }, (_, number) => `registry.test/a:${number}`);
    await Promise.all(names.map((name) => store.tag(name, { ...target, observedAtMs: 1000 })));
    expect(await nameList(await reopen(store))).toEqual(names);
  });

  it('are refused when they are none, or carry no time', async () => {
    const store = await open();
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    for (const name of ['', 'nginx', 'docker.io/nginx:1', 'registry.test/A:1', 'sha256:00']) {
      await expect(store.tag(name, { ...target, observedAtMs: 1 })).rejects.toThrow(/^Cannot tag/);
    }
    const badTime = { ...target, observedAtMs: Number.NaN };
    await expect(store.tag('registry.test/a:1', badTime)).rejects.toThrow(/no time/);
  });
});

describe('DirectoryStore.open', () => {
  it('makes an OCI image layout', async () => {
    const store = await open();
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    await store.tag('registry.test/a:1', { ...target, observedAtMs: Date.UTC(2026, 0, 2) });
    expect(JSON.parse(await readFile(join(path, 'oci-layout'), 'utf8'))).toEqual({
      imageLayoutVersion: '1.0.0',
    });
    expect(JSON.parse(await readFile(join(path, 'index.json'), 'utf8'))).toMatchObject({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: MEDIA_TYPE.ociIndex,
          digest: target.digest,
          size: target.sizeBytes,
          annotations: {
            'org.opencontainers.image.ref.name': 'registry.test/a:1',
            'dev.salvor.observed-at': '2026-01-02T00:00:00.000Z',
          },
        },
      ],
    });
  });

  it('sets a broken index aside and keeps the blobs', async () => {
    const bytes = randomBytes(10);
    await put(await open(), bytes);
    for (const broken of ['{"manifests":[', '[]', '{"manifests":{}}', '']) {
      await writeFile(join(path, 'index.json'), broken);
      const warnings: string[] = [];
      const store = await open({ warnings, now: () => 77 });
      expect(warnings).toHaveLength(1);
      expect(await readFile(join(path, 'index.json.broken-77'), 'utf8')).toBe(broken);
      expect(await store.stat(digestOf(bytes))).toBeDefined();
      expect(await nameList(store)).toEqual([]);
    }
  });

  it("leaves other people's entries as they are", async () => {
    const store = await open();
    const target = await addManifest({ addBlob: (bytes) => put(store, bytes) });
    await store.close();
    const { digest, mediaType, sizeBytes: size } = target;
    const entry = (name: string): object => ({
      mediaType,
      digest,
      size,
      annotations: { 'org.opencontainers.image.ref.name': name },
    });
    const odd = [null, 7, {}, entry('latest'), { ...entry('registry.test/a:9'), digest: 'md5:0' }];
    const index = { schemaVersion: 2, annotations: { by: 'them' }, manifests: odd };
    const full = { ...index, manifests: [...odd, entry('registry.test/a:2')] };
    await writeFile(join(path, 'index.json'), JSON.stringify(full));
    const again = await open();
    expect(await nameList(again)).toEqual(['registry.test/a:2']);
    expect((await again.resolve('registry.test/a:2'))?.observedAtMs).toBeUndefined();
    await again.tag('registry.test/a:3', { ...target, observedAtMs: 1 });
    const written: unknown = JSON.parse(await readFile(join(path, 'index.json'), 'utf8'));
    expect(written).toMatchObject({ ...index, manifests: [...odd, {}, {}] });
  });

  it('throws StoreUnavailableError where no directory can be', async () => {
    await writeFile(join(path, 'file'), '');
    const opening = DirectoryStore.open(
      { path: join(path, 'file', 'below'), maxSizeBytes: 1 },
      { log: silentLogger },
    );
    await expect(opening).rejects.toThrow(StoreUnavailableError);
  });

  it('throws StoreUnavailableError from every call once the directory is gone or closed', async () => {
    const store = await open();
    const digest = digestOf(Buffer.from('x'));
    await rm(path, { recursive: true });
    await expect(store.stat(digest)).rejects.toThrow(StoreUnavailableError);
    await expect(store.open(digest)).rejects.toThrow(StoreUnavailableError);
    await expect(store.createWriter(digest)).rejects.toThrow(StoreUnavailableError);
    await expect(collect(store.blobs())).rejects.toThrow(StoreUnavailableError);
    expect(await store.ready()).toBe(false);
    await store.close();
    await expect(store.resolve('registry.test/a:1')).rejects.toThrow(StoreUnavailableError);
  });
});
