import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ObservationFile } from '../../../src/agent/observation-file.ts';
import { Observations } from '../../../src/agent/observations.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';

let directory: string;
let path: string;
const name = 'registry.test/team/app:v1';

function observation(text: string, observedAtMs: number) {
  return {
    digest: digestOf(Buffer.from(text)),
    mediaType: 'application/vnd.oci.image.index.v1+json',
    sizeBytes: text.length,
    observedAtMs,
  };
}

function open(maxNames = 10): ObservationFile {
  return new ObservationFile({ path, maxNames }, { log: silentLogger, now: () => 42 });
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-observations-'));
  path = join(directory, 'state', 'observations.db');
});

afterEach(() => rm(directory, { recursive: true, force: true }));

describe('ObservationFile', () => {
  test('gives back what was saved, also when it was never closed', () => {
    const first = open();
    first.save(name, observation('one', 1000));
    const second = open();
    expect(second.load()).toEqual([[name, observation('one', 1000)]]);
    first.close();
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

  test('leaves out a row that the disk has altered', () => {
    const file = open();
    file.save(name, observation('one', 1000));
    file.save('registry.test/other:v1', observation('two', 1000));
    file.close();
    const database = new DatabaseSync(path);
    const digest = digestOf(Buffer.from('forged'));
    database.prepare('UPDATE observations SET digest = ? WHERE name = ?').run(digest, name);
    database.close();
    const again = open();
    expect(again.load()).toEqual([['registry.test/other:v1', observation('two', 1000)]]);
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
