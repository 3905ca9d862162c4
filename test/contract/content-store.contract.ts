import { createHash, randomBytes } from 'node:crypto';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { digestOf, parseDigest } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../src/oci/media-type.ts';
import type { BlobInfo, ContentStore, NamedDescriptor, OpenBlob } from '../../src/agent/store.ts';

/** What a name points at. */
export type BlobTarget = Pick<NamedDescriptor, 'digest' | 'mediaType' | 'sizeBytes'>;

/** A store under test, and how content comes into it and goes without its help. */
export interface StoreHarness {
  readonly store: ContentStore;
  /** Puts a blob there; nothing but removeBlob takes it away. */
  addBlob(bytes: Uint8Array): Promise<void>;
  /** Resolves when the blob's file is gone. */
  removeBlob(digest: Digest): Promise<void>;
  /** Writes a name down, whether its target exists or not. */
  addName(name: string, target: BlobTarget): Promise<void>;
  /**
   * Writes down what a store can meet among its records and files and must not take for a name.
   *
   * @returns the names of such records
   */
  addOddRecords(target: BlobTarget): Promise<string[]>;
  /**
   * Starts to write a blob.
   *
   * @returns tries to finish the write; throws when it was aborted
   */
  beginWrite(digest: Digest, firstBytes: Uint8Array): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

export interface ContractOptions {
  /** The store's kind. */
  readonly kind: string;
  open(): Promise<StoreHarness>;
}

const missing = digestOf(Buffer.from('never written'));
const mib = 1024 * 1024;

/** What every ContentStore has to do. */
export function contentStoreContract(title: string, options: ContractOptions): void {
  describe(title, () => {
    let harness: StoreHarness;
    const opened: OpenBlob[] = [];
    const context: ContractContext = {
      harness: () => harness,
      async open(digest) {
        const blob = await harness.store.open(digest);
        if (blob === undefined) throw new Error(`Cannot open ${digest}: it is not there`);
        opened.push(blob);
        return blob;
      },
    };
    beforeAll(async () => {
      harness = await options.open();
    });
    afterEach(async () => {
      for (const blob of opened.splice(0)) await blob.close();
    });
    afterAll(async () => {
      await harness.close();
    });

    it('is ready and says its kind', async () => {
      expect(harness.store.kind).toBe(options.kind);
      expect(await harness.store.ready()).toBe(true);
    });
    statContract(context);
    readContract(context);
    nameContract(context);
    ingestContract(context);
  });
}

interface ContractContext {
  readonly harness: () => StoreHarness;
  /** Opens a blob that the test need not close. */
  readonly open: (digest: Digest) => Promise<OpenBlob>;
}

function statContract({ harness }: ContractContext): void {
  it('stat tells the size of a blob, and the same fingerprint as long as nothing changes', async () => {
    const { digest } = await addBlob(harness(), randomBytes(12_345));
    const info = await harness().store.stat(digest);
    expect(info).toMatchObject({ digest, sizeBytes: 12_345 });
    expect(info?.fingerprint).not.toBe('');
    expect(await harness().store.stat(digest)).toEqual(info);
  });

  it('stat gives undefined for a blob that was never there', async () => {
    expect(await harness().store.stat(missing)).toBeUndefined();
  });

  it('stat and open give undefined as soon as a blob is gone', async () => {
    const { digest } = await addBlob(harness(), randomBytes(1000));
    expect(await harness().store.stat(digest)).toBeDefined();
    await harness().removeBlob(digest);
    expect(await harness().store.stat(digest)).toBeUndefined();
    expect(await harness().store.open(digest)).toBeUndefined();
  });

  it('stat throws the reason of a signal that is aborted already', async () => {
    const reason = new Error('no longer wanted');
    const signal = AbortSignal.abort(reason);
    await expect(harness().store.stat(missing, { signal })).rejects.toBe(reason);
  });

  it('blobs lists every complete blob once, and none that has gone', async () => {
    const kept = await addBlob(harness(), randomBytes(2000));
    const gone = await addBlob(harness(), randomBytes(2000));
    await harness().removeBlob(gone.digest);
    const listed = await collect<BlobInfo>(harness().store.blobs());
    expect(listed.filter(({ digest }) => digest === kept.digest)).toEqual([
      await harness().store.stat(kept.digest),
    ]);
    const digests = listed.map(({ digest }) => digest);
    expect(new Set(digests).size).toBe(digests.length);
    expect(digests).not.toContain(gone.digest);
  });

  it('blobs can be left before the end', async () => {
    await addBlob(harness(), randomBytes(500));
    let seen = 0;
    for await (const info of harness().store.blobs()) {
      seen += info.sizeBytes > 0 ? 1 : 0;
      break;
    }
    expect(seen).toBe(1);
  });
}

function readContract({ harness, open }: ContractContext): void {
  it('open reads every byte, in the order of the blob', async () => {
    const { digest, bytes } = await addBlob(harness(), randomBytes(3 * mib + 17));
    const blob = await open(digest);
    expect(blob).toMatchObject({ digest, sizeBytes: bytes.length });
    expect(blob.fingerprint).toBe((await harness().store.stat(digest))?.fingerprint);
    expect(await digestFrom(blob, 200_000)).toBe(digest);
  });

  it('read begins anywhere, forwards and backwards', async () => {
    const { digest, bytes } = await addBlob(harness(), randomBytes(2 * mib + 5));
    const blob = await open(digest);
    for (const position of [mib + 1, 0, 2 * mib, 7, mib - 1]) {
      const target = Buffer.alloc(1000);
      const count = await blob.read(target, position);
      const expected = bytes.subarray(position, position + 1000);
      expect(count).toBe(expected.length);
      expect(target.subarray(0, count).equals(expected)).toBe(true);
    }
  });

  it('read fills as far as the blob reaches, and gives 0 at its end', async () => {
    const { digest, bytes } = await addBlob(harness(), randomBytes(100));
    const blob = await open(digest);
    const target = Buffer.alloc(64);
    expect(await blob.read(target, 90)).toBe(10);
    expect(target.subarray(0, 10).equals(bytes.subarray(90))).toBe(true);
    expect(await blob.read(target, 100)).toBe(0);
    expect(await blob.read(target, 5000)).toBe(0);
    expect(await blob.read(Buffer.alloc(0), 0)).toBe(0);
  });

  it('read of several places at once mixes nothing up', async () => {
    const { digest, bytes } = await addBlob(harness(), randomBytes(mib));
    const blob = await open(digest);
    const parts = await Promise.all(
      [0, 300_000, 150_000, 900_000].map(async (position) => {
        const target = Buffer.alloc(50_000);
        expect(await blob.read(target, position)).toBe(target.length);
        return target.equals(bytes.subarray(position, position + target.length));
      }),
    );
    expect(parts).toEqual([true, true, true, true]);
  });

  it('read goes on to the end when the blob is removed meanwhile', async () => {
    const { digest } = await addBlob(harness(), randomBytes(8 * mib));
    const blob = await open(digest);
    const first = Buffer.alloc(1000);
    await blob.read(first, 0);
    await harness().removeBlob(digest);
    const rest = await digestFrom(blob, 256 * 1024, first);
    expect(rest).toBe(digest);
  });

  it('open works for an empty blob', async () => {
    const { digest } = await addBlob(harness(), Buffer.alloc(0));
    const blob = await open(digest);
    expect(blob.sizeBytes).toBe(0);
    expect(await blob.read(Buffer.alloc(10), 0)).toBe(0);
  });

  it('close can be repeated, and reading afterwards throws', async () => {
    const { digest } = await addBlob(harness(), randomBytes(10));
    const blob = await open(digest);
    await blob.close();
    await blob.close();
    await expect(blob.read(Buffer.alloc(5), 0)).rejects.toThrow(/^Cannot read/);
  });

  it('open gives undefined for a blob that was never there', async () => {
    expect(await harness().store.open(missing)).toBeUndefined();
  });
}

function nameContract({ harness }: ContractContext): void {
  it('resolve gives what a name points at, and when that was written down', async () => {
    const beforeMs = Date.now();
    const target = await addManifest(harness());
    await harness().addName('registry.test/team/app:1.0', target);
    const record = await harness().store.resolve('registry.test/team/app:1.0');
    expect(record).toMatchObject({ name: 'registry.test/team/app:1.0', ...target });
    expect(record?.recordedAtMs).toBeGreaterThanOrEqual(beforeMs - 1000);
    expect(record?.recordedAtMs).toBeLessThanOrEqual(Date.now() + 1000);
  });

  it('resolve gives undefined for a name that is not there', async () => {
    expect(await harness().store.resolve('registry.test/team/none:1.0')).toBeUndefined();
  });

  it('resolve and names leave out a name whose target is not held', async () => {
    const target = await addManifest(harness());
    await harness().addName('registry.test/team/gone:1', target);
    expect(await harness().store.resolve('registry.test/team/gone:1')).toBeDefined();
    await harness().removeBlob(target.digest);
    expect(await harness().store.resolve('registry.test/team/gone:1')).toBeUndefined();
    expect(await nameList(harness().store)).not.toContain('registry.test/team/gone:1');
  });

  it('resolve and names leave out a target whose size is not the recorded one', async () => {
    const target = await addManifest(harness());
    const wrong = { ...target, sizeBytes: target.sizeBytes + 1 };
    await harness().addName('registry.test/team/wrong:1', wrong);
    expect(await harness().store.resolve('registry.test/team/wrong:1')).toBeUndefined();
    expect(await nameList(harness().store)).not.toContain('registry.test/team/wrong:1');
  });

  it('names lists every tag, and odd records hide none of them', async () => {
    const target = await addManifest(harness());
    const oddNames = await harness().addOddRecords(target);
    const names = ['docker.io/library/busybox:latest', 'localhost:5000/a/b:v1'];
    for (const name of names) await harness().addName(name, target);
    const listed = await nameList(harness().store);
    expect(listed).toEqual(expect.arrayContaining(names));
    expect(listed.filter((name) => oddNames.includes(name))).toEqual([]);
    for (const name of listed) expect(await harness().store.resolve(name)).toBeDefined();
    for (const name of oddNames) expect(await harness().store.resolve(name)).toBeUndefined();
  });
}

function ingestContract({ harness }: ContractContext): void {
  it('abortIngest throws an unfinished write away', async () => {
    const bytes = randomBytes(4000);
    const digest = digestOf(bytes);
    const commit = await harness().beginWrite(digest, bytes);
    expect(await harness().store.stat(digest)).toBeUndefined();
    expect(await harness().store.abortIngest(digest)).toBe(1);
    await expect(commit()).rejects.toThrow();
    expect(await harness().store.stat(digest)).toBeUndefined();
    expect(await harness().store.abortIngest(digest)).toBe(0);
  });

  it('abortIngest leaves other writes and complete blobs alone', async () => {
    const bytes = randomBytes(4000);
    const digest = digestOf(bytes);
    const commit = await harness().beginWrite(digest, bytes);
    const complete = await addBlob(harness(), randomBytes(100));
    expect(await harness().store.abortIngest(missing)).toBe(0);
    expect(await harness().store.abortIngest(complete.digest)).toBe(0);
    await commit();
    expect(await harness().store.stat(digest)).toMatchObject({ sizeBytes: 4000 });
    expect(await harness().store.stat(complete.digest)).toBeDefined();
  });
}

/** Puts a blob into the store. */
export async function addBlob(
  harness: Pick<StoreHarness, 'addBlob'>,
  bytes: Buffer,
): Promise<{ digest: Digest; bytes: Buffer }> {
  await harness.addBlob(bytes);
  return { digest: digestOf(bytes), bytes };
}

/** Puts a small manifest of its own kind into the store. */
export async function addManifest(harness: Pick<StoreHarness, 'addBlob'>): Promise<BlobTarget> {
  const annotations = { 'test.unique': randomBytes(8).toString('hex') };
  const mediaType = MEDIA_TYPE.ociIndex;
  const json = { schemaVersion: 2, mediaType, manifests: [], annotations };
  const { digest, bytes } = await addBlob(harness, Buffer.from(JSON.stringify(json)));
  return { digest, mediaType, sizeBytes: bytes.length };
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

export async function nameList(store: ContentStore): Promise<string[]> {
  return (await collect(store.names())).map(({ name }) => name);
}

/** Reads on from what was read already, to the end. @returns the digest of all of it */
export async function digestFrom(
  blob: OpenBlob,
  chunkBytes: number,
  begun: Uint8Array = new Uint8Array(),
): Promise<Digest> {
  const hash = createHash('sha256').update(begun);
  const chunk = Buffer.alloc(chunkBytes);
  for (let position = begun.byteLength; ;) {
    const count = await blob.read(chunk, position);
    if (count === 0) break;
    hash.update(chunk.subarray(0, count));
    position += count;
  }
  const digest = parseDigest(`sha256:${hash.digest('hex')}`);
  if (!digest.ok) throw new Error(digest.reason);
  return digest.value;
}
