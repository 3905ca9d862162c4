import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { BackfillMetrics } from './backfill-metrics.ts';
import type { BackfillJob, BackfillPlan, BackfillPolicy, Damage } from './backfill-plan.ts';

/** What a person sees of backfill and repair. Times in milliseconds since the epoch. */
export interface BackfillStatus {
  readonly mode: BackfillPolicy['backfill'];
  readonly repair: BackfillPolicy['repair'];
  /** Whether containerd throws layers away here; undefined before the first look. */
  readonly discards?: boolean;
  readonly incompleteImages: number;
  readonly lazyImages: number;
  readonly left: Readonly<Record<Damage, { readonly blobs: number; readonly bytes: number }>>;
  /** Since the start of the process. */
  readonly done: { readonly blobs: number; readonly bytes: number };
  readonly current?: {
    readonly digest: string;
    readonly image?: string;
    readonly sizeBytes: number;
    readonly receivedBytes: number;
  };
  readonly stoppedByDisk: boolean;
  readonly failures: Readonly<Record<string, number>>;
  readonly lastError?: {
    readonly atMs: number;
    readonly digest: string;
    readonly image?: string;
    readonly reason: string;
    readonly message: string;
  };
  readonly lookedAtMs?: number;
}

const damages = ['missing', 'lost', 'corrupt'] as const;

/** Keeps the books of backfill and repair: status, metrics, and one line where it begins. */
export class BackfillProgress {
  readonly #policy: BackfillPolicy;
  readonly #metrics: BackfillMetrics;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #log: Pick<Logger, 'info'>;
  readonly #failures = new Map<string, number>();
  #plan: BackfillPlan | undefined;
  #left: readonly BackfillJob[] = [];
  #done = { blobs: 0, bytes: 0 };
  #current: { readonly job: BackfillJob; receivedBytes: number } | undefined;
  #stoppedByDisk = false;
  #lastError: BackfillStatus['lastError'];
  #lookedAtMs: number | undefined;
  #toldLeft = '';

  constructor(
    policy: BackfillPolicy,
    dependencies: {
      readonly metrics: BackfillMetrics;
      readonly clock: Pick<Clock, 'now'>;
      readonly log: Pick<Logger, 'info'>;
    },
  ) {
    this.#policy = policy;
    this.#metrics = dependencies.metrics;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
  }

  /** There is a new plan. */
  begin(plan: BackfillPlan): void {
    this.#plan = plan;
    this.#left = plan.jobs;
    this.#lookedAtMs = this.#clock.now();
    this.#metrics.incompleteImages.set(plan.incompleteImages);
    this.#setLeft();
    const { incompleteImages, jobs } = plan;
    const bytes = jobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const told = `${incompleteImages} ${jobs.length} ${bytes}`;
    if (told === this.#toldLeft || (incompleteImages === 0 && this.#toldLeft === '')) return;
    this.#toldLeft = told;
    this.#log.info(
      { images: incompleteImages, blobs: jobs.length, bytes },
      incompleteImages === 0 ? 'All images are complete' : 'Images are incomplete',
    );
  }

  beginBlob(job: BackfillJob): void {
    this.#current = { job, receivedBytes: 0 };
  }

  received(bytes: number): void {
    this.#metrics.bytes.inc(bytes);
    if (this.#current !== undefined) this.#current.receivedBytes += bytes;
  }

  done(job: BackfillJob): void {
    this.#current = undefined;
    this.#left = this.#left.filter(({ digest }) => digest !== job.digest);
    const { blobs, bytes } = this.#done;
    this.#done = { blobs: blobs + 1, bytes: bytes + job.sizeBytes };
    this.#metrics.restored.inc({ damage: job.damage });
    this.#setLeft();
  }

  failed(job: BackfillJob, failure: { readonly reason: string; readonly error: unknown }): void {
    const { reason, error } = failure;
    const { digest, damage, image } = job;
    this.#current = undefined;
    this.#failures.set(reason, (this.#failures.get(reason) ?? 0) + 1);
    this.#metrics.failures.inc({ damage, reason });
    const message = error instanceof Error ? error.message : String(error);
    this.#lastError = {
      atMs: this.#clock.now(),
      digest,
      ...(image === undefined ? {} : { image }),
      reason,
      message,
    };
  }

  sawDisk(hasRoom: boolean): void {
    this.#stoppedByDisk = !hasRoom;
    this.#metrics.stopped.set(hasRoom ? 0 : 1);
  }

  end(): void {
    this.#current = undefined;
  }

  status(): BackfillStatus {
    const current = this.#current;
    const image = current?.job.image;
    return {
      mode: this.#policy.backfill,
      repair: this.#policy.repair,
      ...(this.#plan === undefined ? {} : { discards: this.#plan.discards }),
      incompleteImages: this.#plan?.incompleteImages ?? 0,
      lazyImages: this.#plan?.lazyImages ?? 0,
      left: {
        missing: this.#sum('missing'),
        lost: this.#sum('lost'),
        corrupt: this.#sum('corrupt'),
      },
      done: this.#done,
      ...(current === undefined
        ? {}
        : {
            current: {
              digest: current.job.digest,
              ...(image === undefined ? {} : { image }),
              sizeBytes: current.job.sizeBytes,
              receivedBytes: current.receivedBytes,
            },
          }),
      stoppedByDisk: this.#stoppedByDisk,
      failures: Object.fromEntries(this.#failures),
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
      ...(this.#lookedAtMs === undefined ? {} : { lookedAtMs: this.#lookedAtMs }),
    };
  }

  #setLeft(): void {
    for (const damage of damages) {
      const { blobs, bytes } = this.#sum(damage);
      this.#metrics.blobsLeft.set({ damage }, blobs);
      this.#metrics.bytesLeft.set({ damage }, bytes);
    }
  }

  #sum(damage: Damage): { readonly blobs: number; readonly bytes: number } {
    const jobs = this.#left.filter((job) => job.damage === damage);
    return { blobs: jobs.length, bytes: jobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
  }
}
