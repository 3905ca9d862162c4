import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { Backfill, type BackfillOptions } from '../../../../src/agent/keeper/backfill.ts';
import { createBackfillMetrics } from '../../../../src/agent/keeper/backfill-metrics.ts';
import type { Survey } from '../../../../src/agent/keeper/backfill-survey.ts';
import { FetchError } from '../../../../src/agent/keeper/fetch-error.ts';
import type { LocalImage } from '../../../../src/agent/keeper/local-images.ts';
import { RestoreError } from '../../../../src/agent/keeper/restore-error.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const minute = 60_000;
const sizeBytes = 40 * 1024 * 1024;
const quiet = { info: () => undefined, warn: () => undefined, debug: () => undefined };

function digest(name: string): Digest {
  return digestOf(Buffer.from(name));
}

function imageOf(...missing: string[]): LocalImage {
  return {
    digest: digest('image'),
    name: 'registry.test/app:1',
    repositories: [],
    isInUse: true,
    manifestDigest: digest('manifest'),
    isDiscarded: true,
    parts: missing.map((name) => ({
      digest: digest(name),
      sizeBytes,
      kind: 'layer',
      isHeld: false,
    })),
  };
}

/** Takes everything and keeps nothing. */
async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const iterator = chunks[Symbol.asyncIterator]();
  while ((await iterator.next()).done !== true);
}

function scene(options: Partial<BackfillOptions> = {}) {
  const clock = new FakeClock();
  const register = new Registry();
  const missing = new Set<string>();
  const tries: Digest[] = [];
  const kept: Digest[] = [];
  const disk = { sizeBytes: 1000 * sizeBytes, availableBytes: 900 * sizeBytes };
  const state = {
    failure: undefined as Error | undefined,
    rechecked: 'verified' as 'verified' | 'corrupt' | 'missing',
    duringFetch: (): void => undefined,
    removed: new Set<Digest>(),
    random: 0.5,
  };
  const backfill = new Backfill(
    {
      backfill: 'auto',
      repair: 'auto',
      onlyInUse: true,
      intervalMs: 10 * minute,
      maxUsedPercent: 75,
      ...options,
    },
    {
      survey: {
        addCorrupt: () => undefined,
        isStillDue: async (job) => !state.removed.has(job.digest),
        take: async (): Promise<Survey> => ({
          images: missing.size > 0 ? [imageOf(...missing)] : [],
          corrupt: new Set(),
          recorded: new Set(),
        }),
      },
      fetch: {
        fetch: async (job, write) => {
          tries.push(job.digest);
          if (state.failure !== undefined) throw state.failure;
          async function* chunks(): AsyncGenerator<Uint8Array> {
            yield Buffer.alloc(sizeBytes - 1);
            state.duringFetch();
            yield Buffer.alloc(1);
          }
          return { result: await write(chunks), sources: ['upstream'] };
        },
      },
      restore: {
        tidy: async () => undefined,
        restore: async (job, chunks) => {
          await drain(chunks(0));
          for (const name of missing) if (digest(name) === job.digest) missing.delete(name);
          return 'written';
        },
      },
      integrity: { recheck: async () => state.rechecked },
      keepLayers: async (manifest) => void kept.push(manifest),
      readDisk: async () => disk,
      clock,
      random: () => state.random,
      metrics: createBackfillMetrics(register),
      log: quiet,
    },
  );
  /** Lets the time until the next look pass, and the look itself. */
  const look = async (afterMs = 10 * minute): Promise<void> => {
    await clock.untilSleeping();
    clock.advance(afterMs);
    await clock.untilSleeping();
  };
  const value = async (name: string): Promise<number[]> =>
    ((await register.getSingleMetric(name)?.get())?.values ?? []).map(({ value: each }) => each);
  return { backfill, clock, missing, tries, kept, disk, state, look, value };
}

describe('Backfill', () => {
  test('begins at a random moment, so that nodes do not begin together', async () => {
    const { backfill, clock, missing, tries, state, look } = scene();
    state.random = 0.9;
    missing.add('one');
    backfill.start();
    await clock.untilSleeping();
    clock.advance(9 * minute - 1);
    expect(tries).toEqual([]);
    await look(1);
    expect(tries).toEqual([digest('one')]);
    await backfill.stop();
    expect(clock.sleeping).toBe(0);
  });

  test('makes the manifest hold the layer before it fetches it, and shows what it did', async () => {
    const { backfill, missing, kept, look, value } = scene();
    missing.add('one').add('two');
    backfill.start();
    await look();
    expect(kept).toEqual([digest('manifest'), digest('manifest')]);
    expect(backfill.status()).toMatchObject({
      discards: true,
      incompleteImages: 1,
      left: { missing: { blobs: 0, bytes: 0 } },
      done: { blobs: 2, bytes: 2 * sizeBytes },
      stoppedByDisk: false,
    });
    expect(await value('salvor_agent_backfill_fetched_bytes_total')).toEqual([2 * sizeBytes]);
    expect(await value('salvor_agent_backfill_restored_total')).toEqual([2]);
    await backfill.stop();
  });

  test('fetches nothing that would fill the disk too far, and goes on when there is room', async () => {
    const { backfill, missing, disk, tries, look, value } = scene();
    missing.add('one');
    disk.availableBytes = 250 * sizeBytes + sizeBytes / 2;
    backfill.start();
    await look();
    expect(tries).toEqual([]);
    expect(backfill.status()).toMatchObject({
      stoppedByDisk: true,
      lastError: { reason: 'disk_pressure' },
    });
    expect(await value('salvor_agent_backfill_disk_pressure')).toEqual([1]);
    disk.availableBytes = 251 * sizeBytes;
    await look();
    expect(tries).toHaveLength(1);
    expect(backfill.status().stoppedByDisk).toBe(false);
    await backfill.stop();
  });

  test('stops in the middle when the disk fills by other means', async () => {
    const { backfill, missing, disk, look } = scene();
    missing.add('one');
    let looks = 0;
    // At the second look, after the first 32 MiB, there is no room any more.
    Object.defineProperty(disk, 'availableBytes', {
      get: () => ((looks += 1) > 1 ? 0 : 300 * sizeBytes),
    });
    backfill.start();
    await look();
    expect(backfill.status()).toMatchObject({ stoppedByDisk: true, done: { blobs: 0 } });
    expect(missing.size).toBe(1);
    await backfill.stop();
  });

  test('tries again after longer and longer times', async () => {
    const { backfill, missing, state, tries, look } = scene({ intervalMs: minute });
    missing.add('one');
    state.failure = new FetchError('upstream_down', 'The upstream is down');
    backfill.start();
    for (let minutes = 0; minutes < 32; minutes += 1) await look(minute);
    // At 1, 2, 4, 8, 16 and 32 minutes, less what the first wait was shorter.
    expect(tries).toHaveLength(6);
    expect(backfill.status()).toMatchObject({
      failures: { upstream_down: 6 },
      lastError: { reason: 'upstream_down', message: 'The upstream is down' },
    });
    await backfill.stop();
  });

  test('does not soon ask again where credentials are wanted', async () => {
    const { backfill, missing, state, tries, look, value } = scene();
    missing.add('one');
    state.failure = new FetchError('needs_credentials', 'Cannot fetch it: it needs credentials');
    backfill.start();
    for (let looks = 0; looks < 24; looks += 1) await look();
    expect(tries).toHaveLength(1);
    expect(backfill.status().lastError).toMatchObject({
      image: 'registry.test/app:1',
      reason: 'needs_credentials',
    });
    expect(await value('salvor_agent_backfill_failures_total')).toEqual([1]);
    await look(24 * 60 * minute);
    expect(tries).toHaveLength(2);
    await backfill.stop();
  });

  test('does not fetch without end what does not stay', async () => {
    const { backfill, missing, tries, look } = scene({ intervalMs: minute });
    backfill.start();
    for (let minutes = 0; minutes < 60; minutes += 1) {
      missing.add('one');
      await look(minute);
    }
    expect(tries.length).toBeLessThan(9);
    await backfill.stop();
  });

  test('says so when what was written is not right afterwards', async () => {
    const { backfill, missing, state, look } = scene();
    missing.add('one');
    state.rechecked = 'corrupt';
    backfill.start();
    await look();
    expect(backfill.status()).toMatchObject({ done: { blobs: 0 }, failures: { refused: 1 } });
    await backfill.stop();
  });

  test('looks at once when bytes were found to be wrong, unless repair is off', async () => {
    for (const repair of ['auto', 'off'] as const) {
      const { backfill, clock, missing, tries } = scene({ repair, backfill: 'always' });
      missing.add('one');
      backfill.start();
      await clock.untilSleeping();
      backfill.noteCorrupt(digest('wrong'));
      await clock.untilSleeping();
      expect(tries).toHaveLength(repair === 'auto' ? 1 : 0);
      await backfill.stop();
    }
  });

  test('takes another look in the middle of a long plan when bytes were found to be wrong', async () => {
    const { backfill, missing, state, tries, look } = scene();
    missing.add('one').add('two');
    state.duringFetch = () => {
      backfill.noteCorrupt(digest('wrong'));
      missing.clear();
      missing.add('three');
      state.duringFetch = () => undefined;
    };
    backfill.start();
    await look();
    expect(tries).toEqual([digest('one'), digest('three')]);
    await backfill.stop();
  });

  test('leaves out what is not wanted any more when its turn comes', async () => {
    const { backfill, missing, state, tries, look } = scene();
    missing.add('one').add('two');
    state.duringFetch = () => state.removed.add(digest('two'));
    backfill.start();
    await look();
    expect(tries).toEqual([digest('one')]);
    await backfill.stop();
  });

  test('stops in the middle of a blob', async () => {
    const { backfill, clock, missing, state } = scene();
    missing.add('one');
    const { promise: stopping, resolve } = Promise.withResolvers<Promise<void>>();
    state.duringFetch = () => {
      // Not awaited here: it waits for this fetch.
      resolve(backfill.stop());
      throw new RestoreError('refused', 'aborted');
    };
    backfill.start();
    await clock.untilSleeping();
    clock.advance(10 * minute);
    await stopping;
    expect(clock.sleeping).toBe(0);
    expect(backfill.status().failures).toEqual({});
  });
});
