import { copyFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isPassing } from '../../../src/agent/observation-database.ts';
import { ObservationFile } from '../../../src/agent/observation-file.ts';
import { Observations } from '../../../src/agent/observations.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { SeededRandom } from '../../support/random.ts';

let directory: string;
let path: string;
let clock: FakeClock;
const reports: string[] = [];
const told: string[] = [];
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
const retryMs = 30_000;
const name = 'registry.test/team/app:v1';

function observation(text: string, observedAtMs: number) {
  return {
    digest: digestOf(Buffer.from(text)),
    mediaType: 'application/vnd.oci.image.index.v1+json',
    sizeBytes: text.length,
    observedAtMs,
  };
}

function unopened(maxNames = 10): ObservationFile {
  const log = {
    ...silentLogger,
    error: (_: unknown, text?: string) => void reports.push(text ?? ''),
    info: (_: unknown, text?: string) => void told.push(text ?? ''),
  };
  return new ObservationFile({ path, maxNames }, { log, clock });
}

function open(maxNames?: number): ObservationFile {
  const file = unopened(maxNames);
  file.load();
  return file;
}

async function brokenFiles(): Promise<string[]> {
  const names = await readdir(join(directory, 'state'));
  return names.filter((one) => one.includes('.broken-')).sort();
}

beforeEach(async () => {
  clock = new FakeClock(42);
  reports.length = 0;
  told.length = 0;
  directory = await mkdtemp(join(tmpdir(), 'salvor-observations-'));
  path = join(directory, 'state', 'observations.db');
});

afterEach(() => rm(directory, { recursive: true, force: true }));

describe('ObservationFile', () => {
  test('gives back what was saved, also when it was never closed', () => {
    const first = open();
    first.save(name, observation('one', 1000));
    // As the disk is when the process is killed.
    const left = join(directory, 'left.db');
    for (const suffix of ['', '-wal']) copyFileSync(path + suffix, left + suffix);
    first.close();
    path = left;
    const second = open();
    expect(second.load()).toEqual([[name, observation('one', 1000)]]);
    second.close();
  });

  test('keeps the later of two statements, whichever comes first', () => {
    const file = open();
    file.save(name, observation('new', 2000));
    file.save(name, observation('old', 1000));
    expect(file.load()).toEqual([[name, observation('new', 2000)]]);
    file.close();
  });

  test('keeps the newest within its bound', () => {
    const file = open(2);
    for (let index = 0; index < 1200; index += 1) {
      file.save(`registry.test/app:${index}`, observation(String(index), index));
    }
    expect(file.load().map(([saved]) => saved)).toEqual([
      'registry.test/app:1198',
      'registry.test/app:1199',
    ]);
    file.close();
    const database = new DatabaseSync(path);
    const count = database.prepare('SELECT count(*) AS n FROM observations').get() as { n: number };
    database.close();
    expect(count.n).toBeLessThan(1100);
  });

  test('sets a file with an altered row aside once, and keeps what is sound in it', async () => {
    const file = open();
    file.save(name, observation('one', 1000));
    file.save('registry.test/other:v1', observation('two', 1000));
    file.close();
    const database = new DatabaseSync(path);
    // Such a time would outweigh every later statement.
    database
      .prepare('UPDATE observations SET observed_at_ms = ? WHERE name = ?')
      .run(2n ** 60n, name);
    database.close();

    const again = open();
    expect(again.load()).toEqual([['registry.test/other:v1', observation('two', 1000)]]);
    again.save(name, observation('three', 2000));
    again.close();
    const third = open();
    expect(new Map(third.load()).get(name)).toEqual(observation('three', 2000));
    third.close();
    expect(reports).toEqual(['the disk has altered observations, setting them aside']);
    expect(await brokenFiles()).toEqual(['observations.db.broken-42']);
  });

  test('survives any byte that flips and any loss of its end, reports it once, and goes on', async () => {
    const known = new Map(
      Array.from({ length: 60 }, (_, index) => [
        `registry.test/team/app-${index}:v1`,
        observation(`content ${index}`, 1000 + index),
      ]),
    );
    const file = open(100);
    for (const [saved, observed] of known) file.save(saved, observed);
    file.close();
    const whole = await readFile(path);
    const random = new SeededRandom(seed);
    const flips = Array.from({ length: 250 }, (_, index) => {
      const bytes = Buffer.from(whole);
      // The header and the first page decide most, so many hits are there.
      const at = random.integer(0, index < 80 ? 300 : whole.length - 1);
      bytes[at] = bytes[at]! ^ (1 << random.integer(0, 7));
      return { bytes, what: `flip at ${at}` };
    });
    const cuts = Array.from({ length: 30 }, () => {
      const length = random.integer(1, whole.length - 1);
      return { bytes: whole.subarray(0, length), what: `cut to ${length}` };
    });
    let lossless = 0;
    for (const { bytes, what } of [...flips, ...cuts]) {
      const message = `${what}, SEED=${seed}`;
      reports.length = 0;
      await rm(join(directory, 'state'), { recursive: true });
      await mkdir(join(directory, 'state'));
      await writeFile(path, bytes);
      const damaged = unopened(100);
      const loaded = damaged.load();
      for (const [saved, observed] of loaded) {
        expect(observed, `${message} ${saved}`).toEqual(known.get(saved));
      }
      const isLossless = loaded.length === known.size;
      if (isLossless) lossless += 1;
      else expect(reports, message).toHaveLength(1);
      damaged.save(name, observation('later', 5000));
      damaged.close();
      const again = unopened(100);
      const kept = again.load();
      again.close();
      expect(new Map(kept).get(name), message).toEqual(observation('later', 5000));
      expect(kept, message).toHaveLength(loaded.length + 1);
      expect(reports.length, message).toBeLessThanOrEqual(1);
      expect((await brokenFiles()).length, message).toBe(reports.length);
    }
    expect(lossless).toBeGreaterThan(0);
    expect(lossless).toBeLessThan(flips.length);
  }, 60_000);

  test('keeps no more than three broken files', async () => {
    for (let round = 0; round < 5; round += 1) {
      open().close();
      await writeFile(path, 'this is no database, '.repeat(500));
      clock.advance(1);
      open().close();
    }
    expect(await brokenFiles()).toEqual([45, 46, 47].map((at) => `observations.db.broken-${at}`));
  });

  test('leaves a file alone that another process keeps locked', async () => {
    open().close();
    const other = new DatabaseSync(path);
    other.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    const file = open();
    expect(file.isUsable).toBe(false);
    other.close();
    clock.advance(retryMs);
    await new Promise(setImmediate);
    expect(file.isUsable).toBe(true);
    file.close();
    expect(await brokenFiles()).toEqual([]);
  });

  test.each([
    ['a full disk', 13, true],
    ['no room for the shared memory', 4874, true],
    ['a disk that fails to read', 266, true],
    ['a disk that is read-only', 8, true],
    ['a journal that cannot be made on it', 1544, true],
    ['a file that cannot be opened', 14, true],
    ['a lock', 5, true],
    ['a lock while another process recovers', 261, true],
    ['a broken file', 11, false],
    ['a broken index', 779, false],
    ['no database', 26, false],
    ['a column that is not there', 1, false],
  ])('takes %s, code %i, for a trouble that passes: %s', (_, errcode, expected) => {
    expect(isPassing(Object.assign(new Error('x'), { errcode }))).toBe(expected);
  });

  test('is tried again while its directory cannot be made, and says so once', async () => {
    await writeFile(join(directory, 'state'), 'in the way');
    const file = open();
    const observations = new Observations({ maxNames: 10 }, { file });
    observations.record(name, observation('one', 1000));
    observations.record('registry.test/other:v1', observation('two', 1000));
    expect([file.isUsable, reports.length]).toEqual([false, 1]);
    for (let round = 0; round < 3; round += 1) {
      clock.advance(retryMs);
      await new Promise(setImmediate);
    }
    expect([file.isUsable, reports.length, observations.get(name)?.observedAtMs]).toEqual([
      ...[false, 1, 1000],
    ]);
    await rm(join(directory, 'state'));
    clock.advance(retryMs - 1);
    await new Promise(setImmediate);
    expect(file.isUsable).toBe(false);
    clock.advance(1);
    await new Promise(setImmediate);
    expect([file.isUsable, told.length]).toEqual([true, 1]);
    file.close();
    const again = open();
    expect(new Map(again.load())).toEqual(
      new Map([
        [name, observation('one', 1000)],
        ['registry.test/other:v1', observation('two', 1000)],
      ]),
    );
    again.close();
  });

  test('gives what it has, and takes what it lacks, when it comes back', async () => {
    const before = open();
    before.save(name, observation('old', 1000));
    before.save('registry.test/other:v1', observation('newer on disk', 9000));
    before.close();
    const state = join(directory, 'state');
    await rename(state, `${state}-away`);
    await writeFile(state, 'in the way');
    const file = open();
    const observations = new Observations({ maxNames: 10 }, { file });
    expect(observations.get(name)).toBeUndefined();
    observations.record(name, observation('new', 2000));
    observations.record('registry.test/other:v1', observation('older in memory', 8000));
    await rm(state);
    await rename(`${state}-away`, state);
    // Written at the end too, without waiting for the next attempt.
    file.close();
    expect(observations.get('registry.test/other:v1')).toEqual(observation('newer on disk', 9000));
    const again = open();
    expect(new Map(again.load())).toEqual(
      new Map([
        [name, observation('new', 2000)],
        ['registry.test/other:v1', observation('newer on disk', 9000)],
      ]),
    );
    again.close();
  });

  test('sets a broken file aside and goes on', async () => {
    open().close();
    await writeFile(path, 'this is no database, '.repeat(500));
    const file = open();
    file.save(name, observation('one', 1000));
    expect(file.load()).toHaveLength(1);
    file.close();
    expect(await readdir(join(directory, 'state'))).toContain('observations.db.broken-42');
  });
});

describe('Observations', () => {
  test('know after a restart what they knew before', () => {
    const first = open();
    new Observations({ maxNames: 10 }, { file: first }).record(name, observation('one', 1000));
    first.close();
    const second = open();
    const observations = new Observations({ maxNames: 10 }, { file: second });
    expect(observations.get(name)).toEqual(observation('one', 1000));
    second.close();
  });
});
