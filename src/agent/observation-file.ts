import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { crc32 } from 'node:zlib';
import { parseDigest } from '../oci/digest.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/logger.ts';

/** A statement with the time at which the upstream made it. */
export type Observation = TagStatement & { readonly observedAtMs: number };

export interface ObservationFileOptions {
  readonly path: string;
  /** The newest so many are kept. */
  readonly maxNames: number;
}

interface Row {
  readonly name: string;
  readonly digest: string;
  readonly media_type: string;
  readonly size_bytes: number;
  readonly observed_at_ms: number;
  readonly checksum: number;
}

/** Rows over the bound that are allowed before the oldest are removed. */
const SLACK_ROWS = 1000;
/** How long a process that is about to end may keep the file locked, milliseconds. */
const LOCK_TIMEOUT_MS = 2000;
/** Files that were set aside and are kept for people to look at. */
const MAX_BROKEN_FILES = 3;
/** SQLite's codes for troubles that say nothing about the file: BUSY, LOCKED, NOMEM, FULL, CANTOPEN. */
const PASSING_TROUBLES: ReadonlySet<unknown> = new Set([5, 6, 7, 13, 14]);

/**
 * Observations on disk, so that they outlive the process, however it ends. SQLite keeps the file
 * whole; a checksum in each row finds what the disk has altered. A file in which something is
 * wrong is set aside, and a new one begins with what is sound.
 */
export class ObservationFile {
  readonly #options: ObservationFileOptions;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #database: DatabaseSync;
  readonly #upsert: StatementSync;
  #writesSinceTrim = 0;

  /**
   * Opens the file, or makes it. One that cannot be read, or of which the disk has altered rows, is
   * set aside under another name and reported; the agent goes on with what is sound in it.
   *
   * @throws when the directory cannot be written, or the file is locked for longer than 2 s
   */
  constructor(options: ObservationFileOptions, dependencies: { log: Logger; now?: () => number }) {
    this.#options = options;
    this.#log = dependencies.log;
    this.#now = dependencies.now ?? Date.now;
    mkdirSync(dirname(options.path), { recursive: true, mode: 0o750 });
    const { database, rows } = this.#open();
    this.#database = database;
    this.#upsert = this.#database.prepare(
      `INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET digest = excluded.digest,
         media_type = excluded.media_type, size_bytes = excluded.size_bytes,
         observed_at_ms = excluded.observed_at_ms, checksum = excluded.checksum
       WHERE excluded.observed_at_ms >= observations.observed_at_ms`,
    );
    for (const row of rows) this.#keep(row);
  }

  /** What is kept, the oldest first. */
  load(): [name: string, observation: Observation][] {
    const rows = readRows(this.#database, this.#options.maxNames);
    return rows.reverse().flatMap((row) => {
      const digest = parseDigest(row.digest);
      if (!isSound(row) || !digest.ok) return [];
      const observation = {
        digest: digest.value,
        mediaType: row.media_type,
        sizeBytes: row.size_bytes,
        observedAtMs: row.observed_at_ms,
      };
      return [[row.name, observation]];
    });
  }

  /** Keeps an observation. A full or broken disk is reported, not thrown. */
  save(name: string, observation: Observation): void {
    this.#keep({
      name,
      digest: observation.digest,
      media_type: observation.mediaType,
      size_bytes: observation.sizeBytes,
      observed_at_ms: Math.round(observation.observedAtMs),
    });
  }

  close(): void {
    this.#database.close();
  }

  #trim(): void {
    this.#writesSinceTrim = 0;
    this.#database
      .prepare(
        `DELETE FROM observations WHERE name NOT IN
           (SELECT name FROM observations ORDER BY observed_at_ms DESC LIMIT ?)`,
      )
      .run(this.#options.maxNames);
  }

  #keep(row: Omit<Row, 'checksum'>): void {
    const { name, digest, media_type, size_bytes, observed_at_ms } = row;
    const checksum = checksumOf(row);
    try {
      this.#upsert.run(name, digest, media_type, size_bytes, observed_at_ms, checksum);
      this.#writesSinceTrim += 1;
      if (this.#writesSinceTrim > SLACK_ROWS) this.#trim();
    } catch (error) {
      this.#log.warn({ path: this.#options.path, name, err: error }, 'cannot keep an observation');
    }
  }

  /** @returns the file and rows of another that are to be written to it */
  #open(): { database: DatabaseSync; rows: readonly Row[] } {
    const { maxNames, path } = this.#options;
    let database: DatabaseSync | undefined;
    let rows: readonly Row[];
    try {
      database = openDatabase(path);
      rows = readRows(database, maxNames);
    } catch (error) {
      database?.close();
      if (PASSING_TROUBLES.has((error as { errcode?: unknown }).errcode)) throw error;
      const aside = this.#setAside();
      this.#log.error(
        { path, aside, err: error },
        'cannot read the observations, setting them aside',
      );
      return { database: openDatabase(path), rows: [] };
    }
    const sound = rows.filter(isSound).reverse();
    const lost = rows.length - sound.length;
    if (lost === 0) return { database, rows: [] };
    // A row that stayed could claim a time after which no statement would be written again.
    database.close();
    const aside = this.#setAside();
    this.#log.error(
      { path, aside, lost, kept: sound.length },
      'the disk has altered observations, setting them aside',
    );
    return { database: openDatabase(path), rows: sound };
  }

  /** @returns where the file went */
  #setAside(): string {
    const { path } = this.#options;
    const prefix = `${basename(path)}.broken-`;
    const aside = join(dirname(path), `${prefix}${this.#now()}`);
    renameSync(path, aside);
    for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
    const broken = readdirSync(dirname(path)).filter((name) => name.startsWith(prefix));
    for (const name of broken.sort().slice(0, -MAX_BROKEN_FILES)) {
      rmSync(join(dirname(path), name), { force: true, recursive: true });
    }
    return aside;
  }
}

/** The newest rows first. @throws when the file is broken */
function readRows(database: DatabaseSync, maxNames: number): Row[] {
  const statement = database.prepare(
    'SELECT * FROM observations ORDER BY observed_at_ms DESC LIMIT ?',
  );
  // A number that was altered may be too big for any other.
  statement.setReadBigInts(true);
  const rows = statement.all(maxNames) as Record<keyof Row, unknown>[];
  return rows.map((row) => ({
    name: String(row.name),
    digest: String(row.digest),
    media_type: String(row.media_type),
    size_bytes: Number(row.size_bytes),
    observed_at_ms: Number(row.observed_at_ms),
    checksum: Number(row.checksum),
  }));
}

function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS });
  try {
    // The journal survives the process; a power cut may cost the last second, not the file.
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    const check = database.prepare('PRAGMA quick_check').get() as { quick_check?: string };
    if (check.quick_check !== 'ok') throw new Error(`Cannot trust ${path}: ${check.quick_check}`);
    database.exec(
      `CREATE TABLE IF NOT EXISTS observations (
         name TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL,
         size_bytes INTEGER NOT NULL, observed_at_ms INTEGER NOT NULL, checksum INTEGER NOT NULL
       ) STRICT, WITHOUT ROWID`,
    );
    // One altered byte can make a file that only gives and never takes.
    database.exec('PRAGMA user_version = 1');
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function isSound(row: Row): boolean {
  return row.checksum === checksumOf(row);
}

function checksumOf(row: Omit<Row, 'checksum'>): number {
  const { name, digest, media_type, size_bytes, observed_at_ms } = row;
  return crc32(JSON.stringify([name, digest, media_type, size_bytes, observed_at_ms]));
}
