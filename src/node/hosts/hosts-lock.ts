import { readlinkSync } from 'node:fs';
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import type { Clock } from '../../telemetry/clock.ts';
import { isMissing } from './registry-directory.ts';
import { replaceFile } from './replace-file.ts';

const LOCK_FILE = 'hosts.lock';
const HOLDER_FILE = 'hosts.lock.json';
/** Of a state directory on a node: the registry reads some of what is below it. */
const STATE_MODE = 0o755;
const RETRY_MS = 100;
const BUSY = 5;
/** SQLite's READONLY, IOERR, FULL and CANTOPEN. */
const DISK_TROUBLES: ReadonlySet<number> = new Set([8, 10, 13, 14]);

/** Every file that a lock may leave behind when its holder is killed. */
export const LOCK_FILES: readonly string[] = [LOCK_FILE, HOLDER_FILE];

export interface HostsLockOptions {
  /** node.stateDirectory; it is made. */
  readonly directory: string;
  /** What the holder does, for others to read: `salvor hosts write`. */
  readonly what: string;
  /** How long to wait for another holder, milliseconds. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

interface Holder {
  readonly what: string;
  readonly pid: number;
  /** Process numbers mean something within one of these. */
  readonly pidNamespace: string;
  readonly since: string;
}

/**
 * The right to change what `salvor hosts` changes on a node; one process has it at a time, whatever
 * container it is in. The kernel holds the lock and lets go of it when the holder ends, however it
 * does: Node has no call for such locks, and SQLite, which is part of it, takes one on an empty file.
 */
export class HostsLock implements AsyncDisposable {
  readonly #database: DatabaseSync;
  readonly #directory: string;

  private constructor(directory: string, database: DatabaseSync) {
    this.#directory = directory;
    this.#database = database;
  }

  /**
   * Waits until nobody else holds the lock.
   *
   * @throws when it is not free in time, naming who has it; and when the directory cannot be written
   */
  static async acquire(
    options: HostsLockOptions,
    dependencies: { readonly clock: Clock; readonly onWait?: (holder: string) => void },
  ): Promise<HostsLock> {
    const { directory, what, waitMs, signal } = options;
    const { clock, onWait } = dependencies;
    const endAtMs = clock.now() + waitMs;
    await mkdir(directory, { recursive: true, mode: STATE_MODE });
    for (let round = 0; ; round += 1) {
      signal.throwIfAborted();
      const database = await tryLock(join(directory, LOCK_FILE));
      if (database !== undefined) {
        const lock = new HostsLock(directory, database);
        await lock.#sign({ what, since: new Date(clock.now()).toISOString() });
        return lock;
      }
      const holder = await describeHolder(join(directory, HOLDER_FILE));
      if (clock.now() >= endAtMs) {
        throw new Error(
          `Cannot change hosts.toml files: ${holder}, is at it on this node. Nothing was changed ` +
            `after ${waitMs / 1000} s of waiting: run this again when that has ended, or end it`,
        );
      }
      if (round === 0) onWait?.(holder);
      await clock.sleep(RETRY_MS, { signal });
    }
  }

  /** Leaves nothing behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const name of [HOLDER_FILE, LOCK_FILE]) {
        // Others see that their file is gone, and take the new one: see tryLock.
        await rm(join(this.#directory, name), { force: true });
      }
    } finally {
      this.#database.close();
    }
  }

  async #sign(holder: Pick<Holder, 'what' | 'since'>): Promise<void> {
    const { pid } = process;
    const text = JSON.stringify({ ...holder, pid, pidNamespace: pidNamespace() });
    try {
      await replaceFile(join(this.#directory, HOLDER_FILE), text, { mode: 0o600 });
    } catch {
      // It is for people to read. The lock needs no room on the disk, and holds without it.
    }
  }
}

/** @returns undefined when somebody else has it */
async function tryLock(path: string): Promise<DatabaseSync | undefined> {
  for (;;) {
    let before: bigint | undefined;
    let database: DatabaseSync | undefined;
    try {
      await (await open(path, 'a', 0o600)).close();
      before = await inodeOf(path);
      database = new DatabaseSync(path, { timeout: 0 });
      // No file for what could be undone, as nothing is ever written.
      database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    } catch (error) {
      database?.close();
      if (isBusy(error)) return undefined;
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`Cannot lock ${path}: ${reason}`, { cause: error });
    }
    // The last holder may have removed the file that this lock is on.
    if (before !== undefined && before === (await inodeOf(path))) return database;
    database.close();
  }
}

/** Whether a lock could not be taken since the disk is full, read-only or failing. */
export function isDiskTrouble(error: unknown): boolean {
  const { cause = error } = error as { cause?: unknown };
  const { code = '', errcode } = cause as { code?: unknown; errcode?: unknown };
  return typeof errcode === 'number'
    ? DISK_TROUBLES.has(errcode & 0xff)
    : ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'].includes(String(code));
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    return (await stat(path, { bigint: true })).ino;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && (Number(error.errcode) & 0xff) === BUSY;
}

async function describeHolder(path: string): Promise<string> {
  try {
    const { what, pid, since, ...holder } = JSON.parse(await readFile(path, 'utf8')) as Holder;
    const isNear = holder.pidNamespace === pidNamespace();
    return `\`${what}\`, process ${pid}${isNear ? '' : ' of another container'} since ${since}`;
  } catch {
    // It has just begun, or is just ending.
    return 'another `salvor hosts`';
  }
}

function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return 'unknown';
  }
}
