import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Where the first report of a process comes in the interval, so that a start is not disturbed. */
const FIRST_SHARE = 0.1;

/**
 * Makes a report again and again, for the metrics. All members of a cluster keep the schedule, and
 * only the first of those that are alive does the work.
 */
export class ReportSchedule {
  readonly #intervalMs: number;
  readonly #dependencies: {
    readonly make: () => Promise<unknown>;
    readonly isFirst: (signal: AbortSignal) => Promise<boolean>;
    readonly clock: Clock;
    readonly log: Pick<Logger, 'warn'>;
  };
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  /** @param options.intervalMs between reports; 0: none are made */
  constructor(
    options: { readonly intervalMs: number },
    dependencies: {
      readonly make: () => Promise<unknown>;
      /** Whether no member that comes before this one is alive. */
      readonly isFirst: (signal: AbortSignal) => Promise<boolean>;
      readonly clock: Clock;
      readonly log: Pick<Logger, 'warn'>;
    },
  ) {
    this.#intervalMs = options.intervalMs;
    this.#dependencies = dependencies;
  }

  start(): void {
    if (this.#intervalMs > 0) this.#running ??= this.#run();
  }

  /** Ends the schedule; a report that is under way is not waited for. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    const { clock, isFirst, log, make } = this.#dependencies;
    let waitMs = this.#intervalMs * FIRST_SHARE;
    for (;;) {
      try {
        await clock.sleep(waitMs, { signal });
        waitMs = this.#intervalMs;
        if (await isFirst(signal)) await Promise.race([make(), aborted(signal)]);
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ err: error }, 'cannot make the report that is due');
      }
    }
  }
}

async function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = (): void => reject(signal.reason as Error);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}
