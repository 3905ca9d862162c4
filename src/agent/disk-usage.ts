import { statfs } from 'node:fs/promises';

import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

/** How full a file system is, as kubelet reckons: what ordinary processes cannot have is used. */
export interface DiskUsage {
  readonly sizeBytes: number;
  readonly availableBytes: number;
}

/** Looks at one file system. Throws when it cannot be looked at. */
export type ReadDiskUsage = () => Promise<DiskUsage>;

/**
 * Asks the system how full the file system of a path is.
 *
 * @throws the system's error when there is no such path
 */
export async function readDiskUsage(path: string): Promise<DiskUsage> {
  const { bsize, blocks, bavail } = await statfs(path);
  return { sizeBytes: blocks * bsize, availableBytes: bavail * bsize };
}

/** What share of a file system is used, 0 to 100. */
export function usedPercent({ sizeBytes, availableBytes }: DiskUsage): number {
  return sizeBytes <= 0 ? 0 : 100 * (1 - Math.min(availableBytes, sizeBytes) / sizeBytes);
}

export interface DiskWatchOptions {
  /** Between the end of one look, with all that it led to, and the next, milliseconds. */
  readonly intervalMs: number;
}

export interface DiskWatchDependencies {
  readonly read: ReadDiskUsage;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'warn' | 'info'>;
}

/** Told of every look. The next one waits until it has resolved. */
export type DiskListener = (usage: DiskUsage) => void | Promise<void>;

/**
 * Looks at a file system again and again. While it cannot be looked at, the latest answer counts
 * as unknown, and nobody is told anything.
 */
export class DiskWatch {
  readonly #options: DiskWatchOptions;
  readonly #read: ReadDiskUsage;
  readonly #clock: Clock;
  readonly #log: DiskWatchDependencies['log'];
  readonly #listeners = new Set<DiskListener>();
  readonly #stopped = new AbortController();
  #latest: DiskUsage | undefined;
  #isBroken = false;
  #running: Promise<void> | undefined;

  constructor(options: DiskWatchOptions, dependencies: DiskWatchDependencies) {
    this.#options = options;
    this.#read = dependencies.read;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
  }

  /** The latest look; undefined before the first and while the file system cannot be looked at. */
  get latest(): DiskUsage | undefined {
    return this.#latest;
  }

  /** @returns ends the telling */
  subscribe(listener: DiskListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** When it resolves, no listener is at work and no timer is left. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  /** Looks once, and tells every listener. */
  async look(): Promise<DiskUsage | undefined> {
    try {
      this.#latest = await this.#read();
    } catch (error) {
      this.#latest = undefined;
      if (!this.#isBroken) this.#log.warn({ err: error }, 'cannot see how full the disk is');
      this.#isBroken = true;
      return undefined;
    }
    if (this.#isBroken) this.#log.info({}, 'can see again how full the disk is');
    this.#isBroken = false;
    const usage = this.#latest;
    for (const listener of this.#listeners) {
      try {
        await listener(usage);
      } catch (error) {
        if (this.#stopped.signal.aborted) break;
        this.#log.warn({ err: error }, 'cannot act on how full the disk is');
      }
    }
    return usage;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.look();
      try {
        await this.#clock.sleep(this.#options.intervalMs, { signal });
      } catch {
        // Only the stop ends a sleep early.
      }
    }
  }
}
