import type { Digest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { usedPercent, type ReadDiskUsage } from '../disk-usage.ts';
import type { Integrity } from '../integrity.ts';
import type { BackfillMetrics } from './backfill-metrics.ts';
import { BackfillProgress, type BackfillStatus } from './backfill-progress.ts';
import { planBackfill, type BackfillJob, type BackfillPolicy } from './backfill-plan.ts';
import type { BackfillSurvey } from './backfill-survey.ts';
import type { ContentFetch } from './content-fetch.ts';
import { FetchError } from './fetch-error.ts';
import type { Restore } from './repair-containerd.ts';
import { RestoreError } from './restore-error.ts';
import { RetryTimes } from './retry-times.ts';

export interface BackfillOptions extends BackfillPolicy {
  /** From the end of one look at all images to the next, milliseconds, give or take a quarter. */
  readonly intervalMs: number;
  /** Nothing is fetched that would fill the file system beyond this. */
  readonly maxUsedPercent: number;
}

export interface BackfillDependencies {
  readonly survey: Pick<BackfillSurvey, 'take' | 'isStillDue' | 'addCorrupt'>;
  readonly fetch: Pick<ContentFetch, 'fetch'>;
  readonly restore: Restore;
  readonly integrity: Pick<Integrity, 'recheck'>;
  /** Makes a manifest hold its layers, so that garbage collection leaves them. */
  readonly keepLayers: (manifest: Digest) => Promise<void>;
  /** The file system that the content is on; undefined where it is out of sight. */
  readonly readDisk: ReadDiskUsage | undefined;
  readonly clock: Clock;
  /** From 0 up to 1, as Math.random. */
  readonly random: () => number;
  readonly metrics: BackfillMetrics;
  readonly log: Pick<Logger, 'info' | 'warn' | 'debug'>;
}

const minute = 60_000;
const hour = 60 * minute;
const retries = { firstMs: minute, maxMs: 6 * hour, hopelessMs: 24 * hour, maxBlobs: 16_384 };
/** Nodes that start together must not begin together, but nobody waits longer than this. */
const maxStartDelayMs = 10 * minute;
/** How many bytes are fetched between two looks at the disk. */
const diskLookBytes = 32 * 1024 * 1024;
/** What people have to mend: trying soon again would only annoy somebody. */
const hopeless: ReadonlySet<string> = new Set(['needs_credentials', 'shared_file']);

/**
 * Completes what this node holds: fetches layers that are missing and replaces content that is
 * wrong or lost, one blob at a time. Nothing that is there is touched before its replacement is.
 */
export class Backfill {
  readonly #options: BackfillOptions;
  readonly #parts: BackfillDependencies;
  readonly #retries = new RetryTimes(retries);
  readonly #progress: BackfillProgress;
  readonly #stopped = new AbortController();
  #wake = new AbortController();
  #discards = false;
  #running: Promise<void> | undefined;

  constructor(options: BackfillOptions, dependencies: BackfillDependencies) {
    this.#options = options;
    this.#parts = dependencies;
    this.#progress = new BackfillProgress(options, dependencies);
  }

  /** What is going on, for people. */
  status(): BackfillStatus {
    return this.#progress.status();
  }

  /** Bytes of this node were found to be wrong: a look at them will come soon. */
  noteCorrupt(digest: Digest): void {
    this.#parts.survey.addCorrupt(digest);
    if (this.#options.repair !== 'off') this.#wake.abort();
  }

  /** Begins to look at all images from time to time. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends everything. When it resolves, no call is under way and no timer left. */
  async stop(): Promise<void> {
    this.#stopped.abort(new Error('The agent stops'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { random, log } = this.#parts;
    const { intervalMs } = this.#options;
    const { signal } = this.#stopped;
    let isTidy = false;
    await this.#sleep(random() * Math.min(intervalMs, maxStartDelayMs));
    while (!signal.aborted) {
      try {
        if (!isTidy) await this.#parts.restore.tidy({ signal });
        isTidy = true;
        if ((await this.#pass()) === 'unfinished') continue;
      } catch (error) {
        if (!this.#stopped.signal.aborted)
          log.warn({ err: error }, 'Cannot look for incomplete images');
      }
      await this.#sleep(intervalMs * (0.75 + random() / 2));
    }
  }

  /** One look at all images, and work on what is due. @returns whether to look again at once */
  async #pass(): Promise<'finished' | 'unfinished'> {
    const { survey, clock } = this.#parts;
    const { signal } = this.#stopped;
    const untilMs = clock.now() + this.#options.intervalMs;
    this.#wake = new AbortController();
    const { images, corrupt, recorded } = await survey.take({ signal });
    const findings = { corrupt, recorded, discards: this.#discards };
    const plan = planBackfill(images, findings, this.#options);
    this.#discards = plan.discards;
    this.#progress.begin(plan);
    let tried = 0;
    for (const job of plan.jobs) {
      if (signal.aborted) break;
      // At a modest speed a plan takes hours: what is more urgent must not wait for its end.
      const isStale = this.#wake.signal.aborted || clock.now() > untilMs;
      if (isStale && tried > 0) return 'unfinished';
      if (!this.#retries.isDue(job.digest, clock.now())) continue;
      if (!(await survey.isStillDue(job, { signal }))) continue;
      tried += 1;
      if ((await this.#do(job)) === 'disk_pressure') break;
    }
    this.#progress.end();
    return 'finished';
  }

  /** @returns why it was not done */
  async #do(job: BackfillJob): Promise<string | undefined> {
    const { clock, log } = this.#parts;
    const { digest, damage, image } = job;
    const beginMs = clock.now();
    try {
      const sources = await this.#restore(job);
      this.#progress.done(job);
      const nowMs = clock.now();
      this.#retries.record(digest, { nowMs, outcome: 'done' });
      const tookMs = nowMs - beginMs;
      const { sizeBytes } = job;
      log.info({ digest, image, damage, sizeBytes, sources, tookMs }, 'Completed content');
      return undefined;
    } catch (error) {
      if (this.#stopped.signal.aborted) return 'stopped';
      const reason = reasonOf(error);
      this.#progress.failed(job, { reason, error });
      if (reason === 'disk_pressure') {
        log.info({ digest, image, reason: messageOf(error) }, 'Left content for later');
        return reason;
      }
      const outcome = hopeless.has(reason) ? 'hopeless' : 'failed';
      const isRepeated = this.#retries.record(digest, { nowMs: clock.now(), outcome });
      const level = isRepeated ? 'debug' : 'warn';
      log[level]({ digest, image, damage, reason, err: error }, 'Cannot complete content');
      return reason;
    }
  }

  /** @returns who gave the bytes */
  async #restore(job: BackfillJob): Promise<readonly string[]> {
    const { fetch, restore, integrity, keepLayers } = this.#parts;
    const { signal } = this.#stopped;
    await this.#requireRoom(job.sizeBytes);
    // First, so that there is no moment in which garbage collection could take it again.
    if (job.damage === 'missing') {
      for (const manifest of job.manifests) await keepLayers(manifest);
    }
    const { sources } = await fetch.fetch(
      job,
      (chunks) => restore.restore(job, (offset) => this.#counted(job, chunks(offset)), { signal }),
      { signal },
    );
    // Has others see at once that it is here, and is sound.
    const state = await integrity.recheck(job.digest);
    if (state === 'verified') return sources;
    throw new RestoreError('refused', `Cannot keep ${job.digest}: afterwards it is ${state}`);
  }

  async *#counted(job: BackfillJob, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let unseenBytes = 0;
    this.#progress.beginBlob(job);
    for await (const chunk of chunks) {
      unseenBytes += chunk.byteLength;
      this.#progress.received(chunk.byteLength);
      if (unseenBytes >= diskLookBytes) {
        unseenBytes = 0;
        await this.#requireRoom(0);
      }
      yield chunk;
    }
  }

  async #requireRoom(neededBytes: number): Promise<void> {
    const { readDisk } = this.#parts;
    if (readDisk === undefined) return;
    const { maxUsedPercent } = this.#options;
    const usage = await readDisk().catch((cause: unknown) => {
      const message = `Cannot see how full the disk is: ${messageOf(cause)}`;
      throw new RestoreError('disk_unknown', message, { cause });
    });
    const availableBytes = usage.availableBytes - neededBytes;
    const percent = availableBytes < 0 ? 100 : usedPercent({ ...usage, availableBytes });
    this.#progress.sawDisk(percent <= maxUsedPercent);
    if (percent <= maxUsedPercent) return;
    throw new RestoreError(
      'disk_pressure',
      `Cannot take ${neededBytes} bytes more: the disk would be used to ${Math.ceil(percent)} %, ` +
        `more than ${maxUsedPercent} %`,
    );
  }

  /** Ends early when there is something to repair, or on stop. */
  async #sleep(durationMs: number): Promise<void> {
    const signal = AbortSignal.any([this.#stopped.signal, this.#wake.signal]);
    try {
      await this.#parts.clock.sleep(durationMs, { signal });
    } catch {
      // Woken.
    }
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof FetchError || error instanceof RestoreError) return error.reason;
  return error instanceof Error && error.name === 'StoreUnavailableError' ? 'store' : 'other';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
