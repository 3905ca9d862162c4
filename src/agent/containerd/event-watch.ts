import type { Envelope } from '../../rpc/gen/containerd/services/events/v1/events_pb.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { ContainerdClient } from './containerd-client.ts';

const RETRY_MS = 1000;

/**
 * Listens to what happens in containerd, and begins anew whenever it cannot be heard. Nothing is
 * replayed: what happens meanwhile is missed, and only that it may have is told.
 */
export class EventWatch {
  readonly #topics: readonly string[];
  readonly #client: Pick<ContainerdClient, 'events'>;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, 'debug'>;
  readonly #onEvent: (event: Envelope) => void;
  readonly #onGap: (() => void) | undefined;
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  /**
   * @param options.topics patterns of the topics that matter, as of containerd's filters
   * @param dependencies.onGap told after each interruption, the first try included
   */
  constructor(
    options: { readonly topics: readonly string[] },
    dependencies: {
      client: Pick<ContainerdClient, 'events'>;
      clock: Clock;
      log: Pick<Logger, 'debug'>;
      onEvent: (event: Envelope) => void;
      onGap?: () => void;
    },
  ) {
    this.#topics = options.topics;
    this.#client = dependencies.client;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#onEvent = dependencies.onEvent;
    this.#onGap = dependencies.onGap;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** When it resolves, nothing is told any more. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    const hasStopped = (): boolean => signal.aborted;
    while (!hasStopped()) {
      try {
        for await (const event of this.#client.events(this.#topics, { signal })) {
          this.#onEvent(event);
        }
      } catch (error) {
        if (hasStopped()) return;
        this.#log.debug({ err: error }, 'cannot hear what happens in containerd');
      }
      this.#onGap?.();
      await this.#clock.sleep(RETRY_MS, { signal }).catch(() => undefined);
    }
  }
}
