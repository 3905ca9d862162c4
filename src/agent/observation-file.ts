import { parseDigest } from '../oci/digest.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Seldom } from '../telemetry/seldom.ts';
import {
  isBroken,
  isPassing,
  ObservationDatabase,
  readCopy,
  type ObservationRow,
} from './observation-database.ts';

/** A statement with the time at which the upstream made it. */
export type Observation = TagStatement & { readonly observedAtMs: number };

/** What is kept of a name, "registry/repository:tag". */
export type NamedObservation = readonly [name: string, observation: Observation];

export interface ObservationFileOptions {
  readonly path: string;
  /** The newest so many are kept. */
  readonly maxNames: number;
}

/** How long a process that is about to end may keep the file locked at the start, milliseconds. */
const LOCK_TIMEOUT_MS = 2000;
/** Between attempts to use the file again. */
const RETRY_MS = 30_000;
/** The same trouble is said once in that time, milliseconds. */
const SAY_AGAIN_MS = 3_600_000;

/**
 * Observations on disk, so that they outlive the process, however it ends. SQLite keeps the file
 * whole; a checksum in each row finds what the disk has altered. A file in which something is
 * wrong is set aside, and a new one begins with what is sound.
 *
 * A disk that is full, read-only or failing never ends the agent and never costs the file: what is
 * in it is read from a copy in memory, what comes is kept in memory alone, and the file is tried
 * again every half minute. Who keeps them in memory then writes what the file lacks.
 */
export class ObservationFile {
  readonly #options: ObservationFileOptions;
  readonly #log: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly #clock: Clock;
  readonly #seldom: Seldom;
  readonly #stopped = new AbortController();
  /** undefined: it cannot be used at the moment. */
  #database: ObservationDatabase | undefined;
  #retries: Promise<void> | undefined;
  #onReturn: (entries: readonly NamedObservation[]) => void = () => undefined;

  constructor(
    options: ObservationFileOptions,
    dependencies: { log: Pick<Logger, 'info' | 'warn' | 'error'>; clock: Clock },
  ) {
    this.#options = options;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock;
    const now = (): number => this.#clock.now();
    this.#seldom = new Seldom({ intervalMs: SAY_AGAIN_MS, maxKeys: 2 }, { now });
  }

  /** Whether what is saved outlives the process. */
  get isUsable(): boolean {
    return this.#database !== undefined;
  }

  /**
   * Opens the file, or makes it: until then nothing is saved. One that cannot be read, or of which
   * the disk has altered rows, is set aside under another name and reported; the agent goes on with
   * what is sound in it. Never throws.
   *
   * @returns what is kept, the oldest first
   */
  load(): NamedObservation[] {
    try {
      return namedFrom(this.#open(LOCK_TIMEOUT_MS));
    } catch (error) {
      this.#suspend(error);
    }
    const { maxNames, path } = this.#options;
    try {
      return namedFrom(readCopy(path, maxNames));
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException;
      if (['ENOENT', 'ENOTDIR'].includes(code)) return [];
      this.#log.error({ path, err: error }, 'cannot read the observations either, beginning anew');
      return [];
    }
  }

  /**
   * @param listener called each time that the file can be used again, with what is in it; it may
   *   save what the file lacks
   */
  onReturn(listener: (entries: readonly NamedObservation[]) => void): void {
    this.#onReturn = listener;
  }

  /** Keeps an observation. A full or broken disk is reported, not thrown. */
  save(name: string, observation: Observation): void {
    if (this.#database === undefined) return;
    try {
      this.#database.write({
        name,
        digest: observation.digest,
        media_type: observation.mediaType,
        size_bytes: observation.sizeBytes,
        observed_at_ms: Math.round(observation.observedAtMs),
      });
    } catch (error) {
      if (isPassing(error) || isBroken(error)) this.#suspend(error);
      else if (this.#seldom.isDue('row')) {
        const { path } = this.#options;
        this.#log.warn({ path, name, err: error }, 'cannot keep an observation');
      }
    }
  }

  /** Writes, if that is possible by now, what could not be written before. */
  close(): void {
    this.#stopped.abort();
    if (this.#database === undefined) this.#tryAgain();
    this.#letGo();
  }

  #open(lockTimeoutMs: number): readonly ObservationRow[] {
    const { path } = this.#options;
    this.#letGo();
    const { database, rows } = ObservationDatabase.open({
      ...this.#options,
      lockTimeoutMs,
      nowMs: this.#clock.now(),
      onSetAside: ({ aside, fields, reason }) =>
        this.#log.error({ path, aside, ...fields }, reason),
    });
    this.#database = database;
    return rows;
  }

  #letGo(): void {
    this.#database?.close();
    this.#database = undefined;
  }

  #suspend(error: unknown): void {
    this.#letGo();
    this.#report(error);
    this.#retries ??= this.#retry()
      .catch(() => undefined)
      .finally(() => (this.#retries = undefined));
  }

  #report(error: unknown): void {
    if (!this.#seldom.isDue('file')) return;
    const { path } = this.#options;
    const text =
      'cannot keep observations on disk, they are in memory alone; it is tried again: ' +
      'see to the disk of the state directory';
    this.#log.error({ path, err: error }, text);
  }

  async #retry(): Promise<void> {
    const { signal } = this.#stopped;
    while (this.#database === undefined) {
      await this.#clock.sleep(RETRY_MS, { signal });
      this.#tryAgain();
    }
  }

  #tryAgain(): void {
    try {
      // Nothing else runs meanwhile, so that a lock is not waited for.
      this.#onReturn(namedFrom(this.#open(0)));
    } catch (error) {
      this.#letGo();
      this.#report(error);
      return;
    }
    // What was missing may have been too much again.
    if (!this.isUsable) return;
    this.#log.info({ path: this.#options.path }, 'observations are kept on disk again');
  }
}

/** @param rows the newest first */
function namedFrom(rows: readonly ObservationRow[]): NamedObservation[] {
  return rows.toReversed().flatMap((row) => {
    const digest = parseDigest(row.digest);
    if (!digest.ok) return [];
    const observation = {
      digest: digest.value,
      mediaType: row.media_type,
      sizeBytes: row.size_bytes,
      observedAtMs: row.observed_at_ms,
    };
    return [[row.name, observation] as const];
  });
}
