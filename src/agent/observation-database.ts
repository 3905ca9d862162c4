import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { crc32 } from 'node:zlib';
import { setAside } from './set-aside.ts';

/** One observation, as the file has it. */
export interface ObservationRow {
  readonly name: string;
  readonly digest: string;
  readonly media_type: string;
  readonly size_bytes: number;
  readonly observed_at_ms: number;
}

interface RowsRead {
  /** Those that are sound, the newest first. */
  readonly rows: readonly ObservationRow[];
  /** How many were not. */
  readonly lost: number;
}

/** Rows over the bound that are allowed before the oldest are removed. */
const SLACK_ROWS = 1000;
/** What a copy of the file may take of memory. */
const MAX_COPY_BYTES = 64 * 1024 * 1024;
/** File systems in memory, where a copy can be read although the disk is full or read-only. */
const MEMORY_DIRECTORIES: readonly string[] = ['/dev/shm', tmpdir()];

/**
 * SQLite's primary codes for troubles that say nothing about the content of the file: PERM, BUSY,
 * LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL, NOLFS, AUTH.
 */
const PASSING_CODES: ReadonlySet<number> = new Set([3, 5, 6, 7, 8, 10, 13, 14, 15, 22, 23]);
const READONLY = 8;
/** CORRUPT and NOTADB. */
const BROKEN_CODES: ReadonlySet<number> = new Set([11, 26]);

/** A trouble of the disk or of the machine: the file is as it was, and can be tried again. */
export function isPassing(error: unknown): boolean {
  const { errcode, syscall } = error as { errcode?: unknown; syscall?: unknown };
  // Extended codes have the primary one in their lowest byte: https://sqlite.org/rescode.html
  return typeof errcode === 'number' ? PASSING_CODES.has(errcode & 0xff) : syscall !== undefined;
}

/** The content of the file is wrong. */
export function isBroken(error: unknown): boolean {
  const { errcode } = error as { errcode?: unknown };
  return typeof errcode === 'number' && BROKEN_CODES.has(errcode & 0xff);
}

/** Told of a file that was set aside under another name. */
export type OnSetAside = (about: {
  readonly aside: string;
  readonly reason: string;
  readonly fields: object;
}) => void;

export interface OpenOptions {
  readonly path: string;
  readonly maxNames: number;
  /** How long another process may keep it locked, milliseconds. */
  readonly lockTimeoutMs: number;
  readonly nowMs: number;
  readonly onSetAside: OnSetAside;
}

/** What is sound in a file, the newest first, and the file itself. */
export interface OpenedObservations {
  readonly database: ObservationDatabase;
  readonly rows: readonly ObservationRow[];
}

/** Observations in SQLite, each with a checksum that finds what the disk has altered. */
export class ObservationDatabase {
  readonly #database: DatabaseSync;
  readonly #upsert: StatementSync;
  readonly #maxNames: number;
  #writesSinceTrim = 0;

  private constructor(database: DatabaseSync, upsert: StatementSync, maxNames: number) {
    this.#database = database;
    this.#upsert = upsert;
    this.#maxNames = maxNames;
  }

  /**
   * Opens the file, or makes it, and reads it. One that is broken is set aside; one of which the
   * disk has altered rows too, but not before what is sound in it is in its successor.
   *
   * @throws what {@link isPassing} says: nothing has changed then
   */
  static open(options: OpenOptions): OpenedObservations {
    const { lockTimeoutMs, maxNames, nowMs, onSetAside, path } = options;
    mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
    const make = (at: string): ObservationDatabase => {
      const database = openDatabase(at, lockTimeoutMs);
      try {
        return new ObservationDatabase(database, prepareUpsert(database), maxNames);
      } catch (error) {
        database.close();
        throw error;
      }
    };
    let opened: ObservationDatabase | undefined;
    let read: RowsRead;
    try {
      opened = make(path);
      read = readRows(opened.#database, maxNames);
    } catch (error) {
      opened?.close();
      if (isPassing(error) && !isMadeReadOnly(error, path)) throw error;
      const reason = 'cannot read the observations, setting them aside';
      onSetAside({ aside: setAside(path, nowMs), reason, fields: { err: error } });
      return { database: make(path), rows: [] };
    }
    const { lost, rows } = read;
    if (lost === 0) return { database: opened, rows };
    // A row that stayed could claim a time after which no statement would be written again.
    opened.close();
    const fresh = `${path}.new`;
    removeDatabase(fresh);
    try {
      const successor = make(fresh);
      try {
        successor.#fill(rows.toReversed());
      } finally {
        successor.close();
      }
    } catch (error) {
      removeDatabase(fresh);
      throw error;
    }
    const reason = 'the disk has altered observations, setting them aside';
    const aside = setAside(path, nowMs);
    renameSync(fresh, path);
    onSetAside({ aside, reason, fields: { lost, kept: rows.length } });
    return { database: make(path), rows };
  }

  /** Keeps a row, unless there is a later one of that name. @throws when it cannot */
  write(row: ObservationRow): void {
    const { name, digest, media_type, size_bytes, observed_at_ms } = row;
    this.#upsert.run(name, digest, media_type, size_bytes, observed_at_ms, checksumOf(row));
    this.#writesSinceTrim += 1;
    if (this.#writesSinceTrim > SLACK_ROWS) this.#trim();
  }

  /** Never throws: what could not be written to the file itself stays in its journal. */
  close(): void {
    try {
      this.#database.close();
    } catch {
      // It is read again from the journal.
    }
  }

  /** Writes all of it, into the file itself: what a full disk left in the journal would not be renamed. */
  #fill(rows: readonly ObservationRow[]): void {
    this.#database.exec('BEGIN');
    for (const row of rows) this.write(row);
    this.#database.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)');
  }

  #trim(): void {
    this.#writesSinceTrim = 0;
    this.#database
      .prepare(
        `DELETE FROM observations WHERE name NOT IN
           (SELECT name FROM observations ORDER BY observed_at_ms DESC LIMIT ?)`,
      )
      .run(this.#maxNames);
  }
}

/**
 * What is sound in a file on a disk that cannot be written, the newest first. SQLite has to write
 * beside a file to read it, so that a copy in memory is read instead; the file is left alone.
 *
 * @throws when there is no file, no memory for it, or it is broken
 */
export function readCopy(path: string, maxNames: number): readonly ObservationRow[] {
  const parts = ['', '-wal'].filter((suffix) => suffix === '' || existsSync(path + suffix));
  const bytes = parts.reduce((sum, suffix) => sum + statSync(path + suffix).size, 0);
  if (bytes > MAX_COPY_BYTES) throw new Error(`Cannot copy ${path} into memory: ${bytes} bytes`);
  const directory = memoryDirectory();
  try {
    const copy = join(directory, basename(path));
    for (const suffix of parts) copyFileSync(path + suffix, copy + suffix);
    const database = openDatabase(copy, 0);
    try {
      return readRows(database, maxNames).rows;
    } finally {
      database.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function memoryDirectory(): string {
  let failure: unknown;
  for (const parent of MEMORY_DIRECTORIES) {
    try {
      return mkdtempSync(join(parent, 'salvor-observations-'));
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** An altered byte of its head can make a file that only gives and never takes. */
function isMadeReadOnly(error: unknown, path: string): boolean {
  if ((error as { errcode?: unknown }).errcode !== READONLY) return false;
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function removeDatabase(path: string): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true });
}

function prepareUpsert(database: DatabaseSync): StatementSync {
  return database.prepare(
    `INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?)
     ON CONFLICT (name) DO UPDATE SET digest = excluded.digest,
       media_type = excluded.media_type, size_bytes = excluded.size_bytes,
       observed_at_ms = excluded.observed_at_ms, checksum = excluded.checksum
     WHERE excluded.observed_at_ms >= observations.observed_at_ms`,
  );
}

/** @throws when the file is broken */
function readRows(database: DatabaseSync, maxNames: number): RowsRead {
  const statement = database.prepare(
    'SELECT * FROM observations ORDER BY observed_at_ms DESC LIMIT ?',
  );
  // A number that was altered may be too big for any other.
  statement.setReadBigInts(true);
  const rows: ObservationRow[] = [];
  let lost = 0;
  // One at a time: as many again would be in memory only to be thrown away.
  for (const stored of statement.iterate(maxNames)) {
    const row = {
      name: String(stored['name']),
      digest: String(stored['digest']),
      media_type: String(stored['media_type']),
      size_bytes: Number(stored['size_bytes']),
      observed_at_ms: Number(stored['observed_at_ms']),
    };
    if (Number(stored['checksum']) === checksumOf(row)) rows.push(row);
    else lost += 1;
  }
  return { rows, lost };
}

function openDatabase(path: string, lockTimeoutMs: number): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: lockTimeoutMs });
  try {
    // Others are kept out, so that the index of the journal is in this process and not in a mapped
    // file, at whose holes a full disk ends the process with SIGBUS: https://sqlite.org/wal.html
    database.exec('PRAGMA locking_mode = EXCLUSIVE');
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

function checksumOf(row: ObservationRow): number {
  const { name, digest, media_type, size_bytes, observed_at_ms } = row;
  return crc32(JSON.stringify([name, digest, media_type, size_bytes, observed_at_ms]));
}
