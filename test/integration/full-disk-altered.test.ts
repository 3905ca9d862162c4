import { copyFile, readdir, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { beforeAll, expect, test } from 'vitest';
import { ObservationFile } from '../../src/agent/observation-file.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';

expectNoLeaks();

const scope = suiteScope('full-disk-altered');
const soundNames = Array.from({ length: 59 }, (_, index) => `registry.test/team/app:${index}`);
const alteredName = 'registry.test/team/altered:v1';
/** With more there is room for everything, however it is written. */
const maxFreePages = 90;
const pageBytes = 4096;

let disk: string;
let path: string;
/** A file in which one row is wrong, on another disk. */
let altered: string;

beforeAll(async () => {
  disk = await mountSmallDisk(scope(), { name: 'state', sizeBytes: 2 * 1024 * 1024 });
  path = join(disk, 'observations.db');
  altered = join(scope().directory, 'altered.db');
  const file = open(altered);
  file.load();
  for (const [index, name] of [...soundNames, alteredName].entries()) {
    const digest = digestOf(Buffer.from(name));
    file.save(name, { digest, mediaType: 'text/plain', sizeBytes: 1, observedAtMs: 1000 + index });
  }
  file.close();
  const database = new DatabaseSync(altered);
  const alter = 'UPDATE observations SET observed_at_ms = 2000 WHERE name = ?';
  database.prepare(alter).run(alteredName);
  database.close();
});

function open(at: string): ObservationFile {
  const dependencies = { log: silentLogger, clock: new FakeClock(42) };
  return new ObservationFile({ path: at, maxNames: 100 }, dependencies);
}

function namesIn(file: ObservationFile): string[] {
  return file.load().map(([name]) => name);
}

/** The altered file, on a disk with so much room left. */
async function begin(freePages: number): Promise<void> {
  for (const name of await readdir(disk)) await rm(join(disk, name), { recursive: true });
  await copyFile(altered, path);
  const { bavail, bsize } = await statfs(disk);
  const fillerBytes = bavail * bsize - freePages * pageBytes;
  await writeFile(join(disk, 'filler'), Buffer.alloc(fillerBytes, 7), { flush: true });
}

test('a file with an altered row costs nothing that is sound, however little room its disk has', async () => {
  const outcomes = new Set<boolean>();
  for (let freePages = 0; freePages <= maxFreePages; freePages += 1) {
    await begin(freePages);
    const first = open(path);
    expect(namesIn(first), `${freePages} pages free`).toEqual(soundNames);
    outcomes.add(first.isUsable);
    first.close();
    expect(await readdir(disk)).not.toContain('observations.db.new');
    expect(await readdir(disk)).not.toContain('observations.db.new-wal');
    const second = open(path);
    expect(namesIn(second), `${freePages} pages free, again`).toEqual(soundNames);
    second.close();
  }
  expect(outcomes).toEqual(new Set([false, true]));
});
