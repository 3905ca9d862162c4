import type { Logger } from '../../telemetry/logger.ts';
import type { UpstreamClient } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';

/** A time in which an upstream is proven not to answer. */
export interface Outage {
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  readonly cause: UpstreamFailure;
  /** Requests that were answered in full all the same. */
  readonly savedRequests: number;
}

export interface UpstreamHealthOptions {
  /** Between two failures that together prove an outage, at least. Milliseconds, as all below. */
  readonly proofGapMs: number;
  readonly probeIntervalMs: number;
  /** How long one look at the upstream may take. */
  readonly probeTimeoutMs: number;
}

/** Failures further apart than this are not one outage, milliseconds. */
const PROOF_AGE_MS = 30_000;

interface Failure {
  readonly startedAtMs: number;
  readonly failure: UpstreamFailure;
}

/**
 * What is known of one upstream: whether it is in outage, since when and why. An outage needs two
 * failures on separate connections, some time apart, with no success between them; it ends with
 * the first answer, which a background probe looks for.
 */
export class UpstreamHealth {
  readonly #options: UpstreamHealthOptions;
  readonly #client: Pick<UpstreamClient, 'send' | 'host'>;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #onChange: (outage: Outage | undefined) => void;
  readonly #stop = new AbortController();
  #outage: Outage | undefined;
  #firstFailure: Failure | undefined;
  #probe: Promise<UpstreamFailure | undefined> | undefined;
  #probeTimer: NodeJS.Timeout | undefined;

  constructor(
    options: UpstreamHealthOptions,
    dependencies: {
      client: Pick<UpstreamClient, 'send' | 'host'>;
      log: Logger;
      now?: () => number;
      /** Told at each change: the outage that began, or undefined when it ended. */
      onChange?: (outage: Outage | undefined) => void;
    },
  ) {
    this.#options = options;
    this.#client = dependencies.client;
    this.#log = dependencies.log;
    this.#now = dependencies.now ?? Date.now;
    this.#onChange = dependencies.onChange ?? (() => undefined);
  }

  /** The outage that is on, if one is. */
  get outage(): Outage | undefined {
    return this.#outage;
  }

  /** The upstream has answered something. */
  recordSuccess(): void {
    this.#firstFailure = undefined;
    if (this.#outage === undefined) return;
    const { cause, savedRequests, sinceMs } = this.#outage;
    this.#outage = undefined;
    clearTimeout(this.#probeTimer);
    this.#log.info(
      {
        upstream: this.#client.host,
        since: new Date(sinceMs).toISOString(),
        cause: cause.kind,
        durationMs: this.#now() - sinceMs,
        savedRequests,
      },
      'upstream outage is over',
    );
    this.#onChange(undefined);
  }

  /**
   * The upstream has failed one attempt.
   *
   * @param startedAtMs when the attempt began, milliseconds since the epoch
   */
  recordFailure(failure: UpstreamFailure, startedAtMs: number): void {
    this.#weigh(failure, startedAtMs, { isLook: false });
  }

  /** A request was answered in full without the upstream. Counts while an outage is on. */
  recordSaved(): void {
    if (this.#outage === undefined) return;
    this.#outage = { ...this.#outage, savedRequests: this.#outage.savedRequests + 1 };
  }

  /**
   * Looks whether the upstream is alive, on a connection of its own. Everybody who asks meanwhile
   * shares the look.
   *
   * @returns undefined when it answered
   */
  async probe(): Promise<UpstreamFailure | undefined> {
    this.#probe ??= this.#probeOnce().finally(() => {
      this.#probe = undefined;
    });
    return this.#probe;
  }

  /** Ends the background probe, and with it an outage that nobody would see the end of. */
  close(): void {
    clearTimeout(this.#probeTimer);
    this.#stop.abort();
    if (this.#outage === undefined) return;
    this.#outage = undefined;
    this.#onChange(undefined);
  }

  #weigh(
    failure: UpstreamFailure,
    startedAtMs: number,
    { isLook }: { readonly isLook: boolean },
  ): void {
    if (!failure.isOutageSign || this.#outage !== undefined || this.#stop.signal.aborted) return;
    const first = this.#firstFailure;
    const distanceMs = Math.abs(startedAtMs - (first?.startedAtMs ?? startedAtMs));
    // Two failures with hours between them and no word in either direction prove nothing.
    if (first === undefined || distanceMs > PROOF_AGE_MS) {
      this.#firstFailure = { startedAtMs, failure };
      return;
    }
    if (distanceMs < this.#options.proofGapMs) return;
    // An error status may concern one repository alone; the registry itself has to be asked.
    if (failure.kind === 'server_error' && !isLook) {
      void this.probe();
      return;
    }
    const sinceMs = Math.min(first.startedAtMs, startedAtMs);
    this.#outage = { sinceMs, cause: failure, savedRequests: 0 };
    this.#log.warn(
      {
        upstream: this.#client.host,
        since: new Date(sinceMs).toISOString(),
        cause: failure.kind,
        reason: failure.message,
      },
      'upstream outage begins',
    );
    this.#onChange(this.#outage);
    this.#scheduleProbe();
  }

  async #probeOnce(): Promise<UpstreamFailure | undefined> {
    const startedAtMs = this.#now();
    try {
      const response = await this.#client.send({
        method: 'GET',
        path: '/v2/',
        headers: {},
        fresh: true,
        headersTimeoutMs: this.#options.probeTimeoutMs,
        signal: this.#stop.signal,
      });
      response.body.destroy();
      response.body.on('error', () => undefined);
      if (response.status >= 500) {
        throw new UpstreamFailure(
          'server_error',
          `${this.#client.host} answers ${response.status}`,
        );
      }
      this.recordSuccess();
      return undefined;
    } catch (error) {
      const failure = UpstreamFailure.from(error, this.#client.host);
      this.#weigh(failure, startedAtMs, { isLook: true });
      return failure;
    }
  }

  #scheduleProbe(): void {
    // Jitter, so that the nodes of a cluster do not greet a returning registry in step.
    const delayMs = this.#options.probeIntervalMs * (0.75 + Math.random() / 2);
    // A look that began in an earlier outage may come here beside the one of this outage.
    clearTimeout(this.#probeTimer);
    this.#probeTimer = setTimeout(() => {
      void this.probe().then(() => {
        if (this.#outage !== undefined && !this.#stop.signal.aborted) this.#scheduleProbe();
      });
    }, delayMs);
    this.#probeTimer.unref();
  }
}
