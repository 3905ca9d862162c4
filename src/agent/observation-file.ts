import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
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

/**
 * Observations on disk, so that they outlive the process, however it ends. SQLite keeps the file
 * whole; a checksum in each row finds what the disk has altered.
 */
export class ObservationFile {
  readonly #options: ObservationFileOptions;
  readonly #log: Logger;
  readonly #database: DatabaseSync;
  readonly #upsert: StatementSync;
  #writesSinceTrim = 0;

  /**
   * Opens the file, or makes it. One that cannot be read is set aside under another name and
   * reported; what it knew is lost, the agent goes on.
   *
   * @throws when the directory cannot be written
   */
  constructor(options: ObservationFileOptions, dependencies: { log: Logger; now?: () => number }) {
    this.#options = options;
    this.#log = dependencies.log;
    mkdirSync(dirname(options.path), { recursive: true, mode: 0o750 });
    this.#database = this.#open(dependencies.now ?? Date.now);
    this.#upsert = this.#database.prepare(
      `INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET digest = excluded.digest,
         media_type = excluded.media_type, size_bytes = excluded.size_bytes,
         observed_at_ms = excluded.observed_at_ms, checksum = excluded.checksum
       WHERE excluded.observed_at_ms >= observations.observed_at_ms`,
    );
  }

  /** What is kept, the oldest first. Rows that do not match their checksum are left out. */
  load(): [name: string, observation: Observation][] {
    const rows = this.#database
      .prepare('SELECT * FROM observations ORDER BY observed_at_ms DESC LIMIT ?')
      .all(this.#options.maxNames) as unknown as Row[];
    const sound = rows.filter((row) => row.checksum === checksumOf(row));
    if (sound.length < rows.length) {
      const lost = rows.length - sound.length;
      this.#log.warn({ path: this.#options.path, lost }, 'left out altered observations');
    }
    return sound.reverse().flatMap((row) => {
      const digest = parseDigest(row.digest);
      if (!digest.ok) return [];
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
    const row = {
      name,
      digest: observation.digest,
      media_type: observation.mediaType,
      size_bytes: observation.sizeBytes,
      observed_at_ms: Math.round(observation.observedAtMs),
    };
    try {
      const { digest, media_type, size_bytes, observed_at_ms } = row;
      this.#upsert.run(
        name,
        digest,
        media_type,
        size_bytes,
        observed_at_ms,
        checksumOf({ ...row, checksum: 0 }),
      );
      this.#writesSinceTrim += 1;
      if (this.#writesSinceTrim > SLACK_ROWS) this.#trim();
    } catch (error) {
      this.#log.warn({ path: this.#options.path, name, err: error }, 'cannot keep an observation');
    }
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

  #open(now: () => number): DatabaseSync {
    const { path } = this.#options;
    try {
      return openDatabase(path);
    } catch (error) {
      const aside = `${path}.broken-${now()}`;
      this.#log.error(
        { path, aside, err: error },
        'cannot read the observations, setting them aside',
      );
      renameSync(path, aside);
      for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
      return openDatabase(path);
    }
  }
}

function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
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
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function checksumOf(row: Row): number {
  const { name, digest, media_type, size_bytes, observed_at_ms } = row;
  return crc32(JSON.stringify([name, digest, media_type, size_bytes, observed_at_ms]));
}
