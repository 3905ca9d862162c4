import { beforeEach, describe, expect, it } from 'vitest';
import { CorruptionReports } from '../../../src/agent/corruption-reports.ts';
import { Integrity } from '../../../src/agent/integrity.ts';
import type { BlobInfo } from '../../../src/agent/store.ts';
import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const mib = 1024 ** 2;
const bytesPerSecond = 4 * mib;

/** Blobs of zeros, and how much of them was read. */
const store = {
  sizes: new Map<Digest, number>(),
  readBytes: 0,
  opened: [] as Digest[],
  async stat(digest: Digest): Promise<BlobInfo | undefined> {
    const sizeBytes = this.sizes.get(digest);
    return sizeBytes === undefined ? undefined : { digest, sizeBytes, fingerprint: 'f' };
  },
  async open(digest: Digest) {
    const info = await this.stat(digest);
    if (info === undefined) return undefined;
    this.opened.push(digest);
    return {
      ...info,
      read: async (target: Buffer, position: number) => {
        const count = Math.min(target.byteLength, info.sizeBytes - position);
        target.fill(0, 0, count);
        this.readBytes += count;
        return count;
      },
      close: async () => undefined,
    };
  },
  async *blobs(): AsyncGenerator<BlobInfo> {
    // Nothing is looked over here.
  },
};

let clock: FakeClock;
let integrity: Integrity;
let reports: CorruptionReports;

beforeEach(() => {
  store.sizes.clear();
  store.opened = [];
  store.readBytes = 0;
  clock = new FakeClock();
  integrity = new Integrity({ bytesPerSecond }, { store, log: silentLogger, clock });
  reports = new CorruptionReports({ integrity, clock });
});

function add(sizeBytes = 1000): Digest {
  const digest = digestOf(Buffer.alloc(sizeBytes));
  store.sizes.set(digest, sizeBytes);
  return digest;
}

const stateOf = async (digest: Digest): Promise<string> =>
  integrity.stateOf((await store.stat(digest))!);
const from = (host: string): { host: string } => ({ host });

describe('CorruptionReports', () => {
  it('hashes what is reported, and says what came of it', async () => {
    const wrong = digestOf(Buffer.from('not zeros'));
    store.sizes.set(wrong, 9);

    expect(await reports.add(wrong, from('a'))).toBe('corrupt');
    expect(await reports.add(add(), from('a'))).toBe('verified');
    expect(await stateOf(wrong)).toBe('corrupt');
  });

  it('hashes the same blob once a minute, whoever reports it how often', async () => {
    const digest = add();

    for (const host of ['a', 'a', 'b', 'c']) {
      expect(await reports.add(digest, from(host))).toBe('verified');
    }
    await Promise.all(['a', 'b'].map((host) => reports.add(digest, from(host))));
    expect(store.opened).toEqual([digest]);

    clock.advance(59_999);
    await reports.add(digest, from('a'));
    expect(store.opened).toEqual([digest]);
    clock.advance(1);
    await reports.add(digest, from('a'));
    expect(store.opened).toEqual([digest, digest]);
  });

  it('leaves a copy verified while it is hashed again', async () => {
    const digest = add();
    await integrity.recheck(digest);

    const report = reports.add(digest, from('a'));
    expect(await stateOf(digest)).toBe('verified');
    await report;
  });

  it('hashes at once what was never hashed, since somebody waits for it', async () => {
    const digest = add(64 * mib);

    expect(await reports.add(digest, from('a'))).toBe('verified');
    expect(clock.sleeping).toBe(0);
  });

  it('reads no faster than the background what was hashed before', async () => {
    const digest = add(64 * mib);
    await integrity.recheck(digest);
    store.readBytes = 0;
    const report = reports.add(digest, from('a'));

    await clock.untilSleeping();
    // What a second allows may be read at once.
    expect(store.readBytes).toBeLessThanOrEqual(2 * bytesPerSecond);

    await integrity.stop();
    await expect(report).rejects.toThrow();
  });

  it('lets a host have eight of them wait, and others theirs', async () => {
    const first = add(64 * mib);
    await integrity.recheck(first);
    store.opened = [];
    const running = [reports.add(first, from('a'))];
    await clock.untilSleeping();
    const known = await Promise.all(
      Array.from({ length: 9 }, async (_, index) => {
        const digest = add(index + 1);
        await integrity.recheck(digest);
        return digest;
      }),
    );
    store.opened = store.opened.slice(0, 1);
    for (const digest of known.slice(0, 7)) running.push(reports.add(digest, from('a')));

    await expect(reports.add(known[7]!, from('a'))).rejects.toThrow('too many reports of a wait');
    running.push(reports.add(known[8]!, from('b')));

    await integrity.stop();
    const ends = await Promise.allSettled(running);
    expect(ends.map(({ status }) => status)).toEqual(Array(9).fill('rejected'));
    expect(store.opened).toEqual([first]);
  });

  it('has nobody wait who hashes for this node itself', async () => {
    const large = add(64 * mib);
    await integrity.recheck(large);
    const report = reports.add(large, from('a'));
    await clock.untilSleeping();

    expect(await integrity.recheck(add())).toBe('verified');

    await integrity.stop();
    await expect(report).rejects.toThrow();
  });

  it('has no first look wait for what is hashed again', async () => {
    const large = add(64 * mib);
    await integrity.recheck(large);
    const again = reports.add(large, from('a'));
    await clock.untilSleeping();

    expect(await reports.add(add(), from('a'))).toBe('verified');

    await integrity.stop();
    await expect(again).rejects.toThrow();
  });

  it('remembers nothing of what it could not look at', async () => {
    const digest = add();
    const fault = new Error('Cannot read: the disk is away');
    const failing = new CorruptionReports({
      integrity: { recheckForOthers: () => Promise.reject(fault) },
      clock,
    });
    for (let time = 0; time < 20; time += 1) {
      await expect(failing.add(digest, from('a'))).rejects.toThrow(fault);
    }
  });
});
