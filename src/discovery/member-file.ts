import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Seldom } from '../telemetry/seldom.ts';
import type { Member } from './membership.ts';

const VERSION = 1;
/** Between attempts to write a list. */
const RETRY_MS = 30_000;
/** The same trouble is said once in that time, milliseconds. */
const SAY_AGAIN_MS = 3_600_000;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_NAME_LENGTH = 253;
const address = /^(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z._-]{1,253}):\d{1,5}$/;

export interface MemberFileOptions {
  readonly path: string;
  readonly maxMembers: number;
}

/** Members as they were when they were last listed. */
export interface KeptMembers {
  readonly members: readonly Member[];
  /** Milliseconds since the epoch. */
  readonly savedAtMs: number;
}

/**
 * The last list of members on disk, so that an agent that starts without its source knows whom to
 * ask. Nothing in it is believed that does not look like a member; a file that cannot be read
 * counts as none.
 */
export class MemberFile {
  readonly #options: MemberFileOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #seldom: Seldom;
  readonly #stopped = new AbortController();
  #pending:
    | { readonly source: string; readonly members: readonly Member[]; readonly savedAtMs: number }
    | undefined;
  #work: Promise<void> | undefined;

  constructor(options: MemberFileOptions, dependencies: { log: Logger; clock: Clock }) {
    this.#options = options;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock;
    const now = (): number => this.#clock.now();
    this.#seldom = new Seldom({ intervalMs: SAY_AGAIN_MS, maxKeys: 1 }, { now });
  }

  /**
   * @param source what they must have come from
   * @returns undefined when there is nothing of that source. Never throws
   */
  async read(source: string): Promise<KeptMembers | undefined> {
    const { path, maxMembers } = this.#options;
    try {
      const { size } = await stat(path);
      if (size > MAX_FILE_BYTES) throw new Error(`it has ${size} bytes`);
      const content = JSON.parse(await readFile(path, 'utf8')) as unknown;
      if (!isRecord(content) || content['version'] !== VERSION) throw new Error('unknown format');
      const { members, savedAtMs } = content;
      if (content['source'] !== source || !Array.isArray(members)) return undefined;
      return {
        members: members
          .slice(0, maxMembers)
          .map(memberOf)
          .filter((each) => each !== undefined),
        // A time in the future says nothing; the list itself may well be right.
        savedAtMs: Math.min(typeof savedAtMs === 'number' ? savedAtMs : 0, this.#clock.now()),
      };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      this.#log.warn(
        { path, err: error },
        'cannot read the last list of members, going on without',
      );
      return undefined;
    }
  }

  /**
   * Keeps a list, in its own time; of several that come at once the last. Where it cannot be written
   * it is tried again.
   */
  save(source: string, members: readonly Member[]): void {
    this.#pending = { source, members, savedAtMs: this.#clock.now() };
    this.#work ??= this.#writeAll().finally(() => (this.#work = undefined));
  }

  /** Waits until the last list is written, or could not be once more. */
  async close(): Promise<void> {
    this.#stopped.abort();
    await this.#work;
  }

  async #writeAll(): Promise<void> {
    const { signal } = this.#stopped;
    for (let next = this.#pending; next !== undefined; next = this.#pending) {
      const isLast = signal.aborted;
      if (await this.#write(JSON.stringify({ version: VERSION, ...next }))) {
        // A newer one may have come meanwhile.
        if (this.#pending === next) this.#pending = undefined;
      } else if (isLast) {
        return;
      } else {
        await this.#clock.sleep(RETRY_MS, { signal }).catch(() => undefined);
      }
    }
  }

  /** @returns whether it is on disk */
  async #write(text: string): Promise<boolean> {
    const { path } = this.#options;
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o750 });
      await writeFile(`${path}.new`, text, { mode: 0o640, flush: true });
      await rename(`${path}.new`, path);
      return true;
    } catch (error) {
      if (this.#seldom.isDue('')) {
        this.#log.warn({ path, err: error }, 'cannot keep the list of members, it is tried again');
      }
      return false;
    }
  }
}

function memberOf(value: unknown): Member | undefined {
  if (!isRecord(value)) return undefined;
  const { name, address: at, zone } = value;
  if (typeof name !== 'string' || name === '' || name.length > MAX_NAME_LENGTH) return undefined;
  if (typeof at !== 'string' || !address.test(at)) return undefined;
  return { name, address: at, ...(typeof zone === 'string' && zone !== '' && { zone }) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
