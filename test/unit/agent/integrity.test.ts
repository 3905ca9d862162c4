import { randomBytes } from 'node:crypto';
import { utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { DirectoryStore } from '../../../src/agent/directory/directory-store.ts';
import { Integrity } from '../../../src/agent/integrity.ts';
import type { IntegrityDependencies, IntegrityOptions } from '../../../src/agent/integrity.ts';
import { StoreUnavailableError } from '../../../src/agent/store.ts';
import type { BlobInfo, OpenBlob } from '../../../src/agent/store.ts';
import { digestHex, digestOf } from '../../../src/oci/digest.ts';
import type { Digest } from '../../../src/oci/digest.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { makeWorkDirectory, removeDirectory } from '../../support/work-dir.ts';

const sweepIntervalMs = 60_000;
const kib = 1024;

/** Blobs in memory, and who has them open. */
class MemoryStore {
  readonly blobsByDigest = new Map<Digest, { bytes: Buffer; version: number }>();
  /** In order: a digest for every opening. */
  readonly opened: Digest[] = [];
  openNow = 0;
  maxOpen = 0;
  problem: Error | undefined;

  put(digest: Digest, bytes: Buffer): void {
    const version = (this.blobsByDigest.get(digest)?.version ?? 0) + 1;
    this.blobsByDigest.set(digest, { bytes, version });
  }

  async stat(digest: Digest): Promise<BlobInfo | undefined> {
    if (this.problem !== undefined) throw this.problem;
    const blob = this.blobsByDigest.get(digest);
    if (blob === undefined) return undefined;
    return { digest, sizeBytes: blob.bytes.length, fingerprint: `version ${blob.version}` };
  }

  async open(digest: Digest): Promise<OpenBlob | undefined> {
    const info = await this.stat(digest);
    if (info === undefined) return undefined;
    const { bytes } = this.blobsByDigest.get(digest)!;
    this.opened.push(digest);
    this.openNow += 1;
    this.maxOpen = Math.max(this.maxOpen, this.openNow);
    return {
      ...info,
      read: async (target, position) => bytes.copy(target, 0, position),
      close: async () => {
        this.openNow -= 1;
      },
    };
  }

  async *blobs(): AsyncGenerator<BlobInfo> {
    for (const digest of this.blobsByDigest.keys()) yield (await this.stat(digest))!;
  }
}

let store: MemoryStore;
let clock: FakeClock;
let corrupt: Digest[];
let integrities: Integrity[];

beforeEach(() => {
  store = new MemoryStore();
  clock = new FakeClock();
  corrupt = [];
  integrities = [];
});

afterEach(async () => {
  for (const integrity of integrities) await integrity.stop();
  expect(store.openNow).toBe(0);
  expect(clock.sleeping).toBe(0);
});

function create(
  options: IntegrityOptions = {},
  dependencies: Partial<IntegrityDependencies> = {},
): Integrity {
  const integrity = new Integrity(
    { bytesPerSecond: 1024 * 1024 * kib, sweepIntervalMs, ...options },
    {
      store,
      log: silentLogger,
      clock,
      onCorrupt: ({ digest }) => void corrupt.push(digest),
      ...dependencies,
    },
  );
  integrities.push(integrity);
  return integrity;
}

function add(bytes = randomBytes(100)): Digest {
  const digest = digestOf(bytes);
  store.put(digest, bytes);
  return digest;
}

async function state(integrity: Integrity, digest: Digest): Promise<string> {
  return integrity.stateOf((await store.stat(digest))!);
}

describe('Integrity.start', () => {
  it('hashes everything in the store, then waits', async () => {
    const good = add();
    const empty = add(Buffer.alloc(0));
    const large = add(randomBytes(700 * kib));
    const bad = digestOf(Buffer.from('right'));
    store.put(bad, Buffer.from('wrong'));
    const integrity = create();
    expect(await state(integrity, good)).toBe('unverified');
    integrity.start();
    await clock.untilSleeping();
    for (const digest of [good, empty, large]) {
      expect(await state(integrity, digest)).toBe('verified');
    }
    expect(await state(integrity, bad)).toBe('corrupt');
    expect(corrupt).toEqual([bad]);
    expect(store.maxOpen).toBe(1);
  });

  it('hashes the same bytes once, and new bytes after the next interval', async () => {
    const first = add();
    const integrity = create();
    integrity.start();
    await clock.untilSleeping();
    const second = add();
    clock.advance(sweepIntervalMs - 1);
    expect(clock.sleeping).toBe(1);
    expect(await state(integrity, second)).toBe('unverified');
    clock.advance(1);
    await clock.untilSleeping();
    expect(await state(integrity, second)).toBe('verified');
    expect(store.opened).toEqual([first, second]);
  });

  it('hashes again what has changed', async () => {
    const digest = add();
    const integrity = create();
    integrity.start();
    await clock.untilSleeping();
    store.put(digest, randomBytes(100));
    expect(await state(integrity, digest)).toBe('unverified');
    clock.advance(sweepIntervalMs);
    await clock.untilSleeping();
    expect(await state(integrity, digest)).toBe('corrupt');
  });

  it('reads no faster than allowed', async () => {
    add(randomBytes(1000 * kib));
    const integrity = create({ bytesPerSecond: 1000 * kib });
    const startMs = clock.now();
    integrity.start();
    await clock.untilSleeping();
    while (store.openNow > 0) {
      clock.advance(1);
      await clock.untilSleeping();
    }
    const tookMs = clock.now() - startMs;
    expect(tookMs).toBeGreaterThanOrEqual(980);
    expect(tookMs).toBeLessThanOrEqual(1020);
  });

  it('goes on after a time in which the store could not be asked', async () => {
    const digest = add();
    store.problem = new StoreUnavailableError('Cannot ask: it restarts');
    const integrity = create();
    integrity.start();
    await clock.untilSleeping();
    store.problem = undefined;
    clock.advance(sweepIntervalMs);
    await clock.untilSleeping();
    expect(await state(integrity, digest)).toBe('verified');
  });

  it('goes on when whoever hears of corrupt bytes throws', async () => {
    const bad = digestOf(Buffer.from('right'));
    store.put(bad, Buffer.from('wrong'));
    const good = add();
    const onCorrupt = (): never => {
      throw new Error('no');
    };
    const integrity = create({}, { onCorrupt });
    integrity.start();
    await clock.untilSleeping();
    expect(await state(integrity, bad)).toBe('corrupt');
    expect(await state(integrity, good)).toBe('verified');
  });

  it('remembers no more than told', async () => {
    const digests = [add(), add(), add()];
    const integrity = create({ maxRecords: 2 });
    integrity.start();
    await clock.untilSleeping();
    const states = await Promise.all(digests.map((digest) => state(integrity, digest)));
    expect(states.filter((one) => one === 'verified').length).toBeLessThanOrEqual(2);
  });
});

describe('Integrity.request', () => {
  it('has a blob hashed at once, whatever the interval', async () => {
    const integrity = create();
    integrity.start();
    await clock.untilSleeping();
    const digest = add();
    integrity.request(digest);
    integrity.request(digest);
    await clock.untilSleeping();
    expect(await state(integrity, digest)).toBe('verified');
    expect(store.opened).toEqual([digest]);
  });

  it('comes before the rest of a sweep', async () => {
    const swept = [add(), add(), add()];
    const integrity = create();
    const last = swept[2]!;
    integrity.request(last);
    integrity.start();
    await clock.untilSleeping();
    expect(store.opened).toEqual([last, swept[0], swept[1]]);
  });

  it('is served whatever is going on when it comes', async () => {
    for (let turns = 0; turns < 60; turns += 1) {
      store = new MemoryStore();
      clock = new FakeClock();
      const integrity = create();
      integrity.start();
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      const digest = add();
      integrity.request(digest);
      await clock.untilSleeping();
      expect(await state(integrity, digest)).toBe('verified');
      await integrity.stop();
    }
  });

  it('passes over what is not there', async () => {
    const integrity = create();
    integrity.start();
    await clock.untilSleeping();
    integrity.request(digestOf(Buffer.from('missing')));
    await clock.untilSleeping();
    expect(store.opened).toEqual([]);
  });
});

describe('Integrity.recheck', () => {
  it('tells what it finds, without having been started', async () => {
    const integrity = create();
    const bad = digestOf(Buffer.from('right'));
    store.put(bad, Buffer.from('wrong'));
    expect(await integrity.recheck(add())).toBe('verified');
    expect(await integrity.recheck(bad)).toBe('corrupt');
    expect(await integrity.recheck(digestOf(Buffer.from('missing')))).toBe('missing');
    expect(await state(integrity, bad)).toBe('corrupt');
    expect(corrupt).toEqual([bad]);
  });

  it('looks again where the fingerprint is the same, and leaves what was known until then', async () => {
    const digest = add();
    const integrity = create();
    await integrity.recheck(digest);
    store.blobsByDigest.get(digest)!.bytes[0]! ^= 1;
    const recheck = integrity.recheck(digest);
    expect(await state(integrity, digest)).toBe('verified');
    expect(await recheck).toBe('corrupt');
    expect(await state(integrity, digest)).toBe('corrupt');
  });

  it('hashes once for all who ask at the same time, and one blob after the other', async () => {
    const integrity = create();
    const [first, second] = [add(), add()];
    const answers = [first, second, first, second].map((digest) => integrity.recheck(digest));
    expect(await Promise.all(answers)).toEqual(Array(4).fill('verified'));
    expect(store.opened).toEqual([first, second]);
    expect(store.maxOpen).toBe(1);
  });

  it('refuses when too many wait', async () => {
    const integrity = create();
    const answers = Array.from({ length: 65 }, () => integrity.recheck(add()));
    const settled = await Promise.allSettled(answers);
    expect(settled.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    expect(await integrity.recheck(add())).toBe('verified');
  });

  it('throws when the store cannot be asked, and works afterwards', async () => {
    const integrity = create();
    const digest = add();
    store.problem = new StoreUnavailableError('Cannot ask: it restarts');
    await expect(integrity.recheck(digest)).rejects.toThrow(StoreUnavailableError);
    store.problem = undefined;
    expect(await integrity.recheck(digest)).toBe('verified');
  });
});

describe('Integrity.stop', () => {
  it('ends in the middle of a blob, and nothing is hashed any more', async () => {
    const digest = add(randomBytes(1000 * kib));
    const integrity = create({ bytesPerSecond: kib });
    integrity.start();
    await clock.untilSleeping();
    expect(store.openNow).toBe(1);
    await integrity.stop();
    expect(store.openNow).toBe(0);
    integrity.request(digest);
    await expect(integrity.recheck(digest)).rejects.toThrow();
    expect(await state(integrity, digest)).toBe('unverified');
  });
});

describe('Integrity over real files', () => {
  let path: string;

  beforeEach(async () => {
    path = await makeWorkDirectory('integrity');
  });

  afterEach(async () => {
    await removeDirectory(path);
  });

  it('notices bytes that were changed in place without a change of size', async () => {
    const files = await DirectoryStore.open({ path, maxSizeBytes: 10_000 }, { log: silentLogger });
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    const writer = await files.createWriter(digest);
    await writer!.write(bytes);
    await writer!.commit();
    const integrity = create({}, { store: files });
    expect(await integrity.recheck(digest)).toBe('verified');
    expect(integrity.stateOf((await files.stat(digest))!)).toBe('verified');

    bytes[500]! ^= 1;
    const file = join(path, 'blobs', 'sha256', digestHex(digest));
    await writeFile(file, bytes, { flag: 'r+' });
    // The kernel's time may stand still for some milliseconds, and this test is faster.
    await utimes(file, new Date(), new Date(Date.now() + 1000));
    const info = (await files.stat(digest))!;
    expect(info.sizeBytes).toBe(1000);
    expect(integrity.stateOf(info)).toBe('unverified');
    expect(await integrity.recheck(digest)).toBe('corrupt');
    expect(integrity.stateOf((await files.stat(digest))!)).toBe('corrupt');
    await files.close();
  });
});
