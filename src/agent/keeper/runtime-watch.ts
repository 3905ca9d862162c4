import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';

/** What changes which images there are and which are in use. */
const topics = ['/images/', '/containers/create', '/containers/delete'];
const retryMs = 1000;

/**
 * Tells when the runtime's images or containers change. Events only make it sooner: what happens
 * while containerd is away is told once it is back, as one change.
 */
export class RuntimeWatch {
  readonly #client: Pick<ContainerdClient, 'events'>;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, 'debug'>;
  readonly #onChange: () => void;
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: {
    client: Pick<ContainerdClient, 'events'>;
    clock: Clock;
    log: Pick<Logger, 'debug'>;
    onChange: () => void;
  }) {
    this.#client = dependencies.client;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#onChange = dependencies.onChange;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!this.#hasStopped()) {
      try {
        for await (const { topic } of this.#client.events(topics, { signal })) {
          this.#log.debug({ topic }, 'the runtime has changed');
          this.#onChange();
        }
      } catch (error) {
        if (this.#hasStopped()) return;
        this.#log.debug({ err: error }, 'cannot hear what happens in the runtime');
      }
      // It may have missed something.
      this.#onChange();
      await this.#clock.sleep(retryMs, { signal }).catch(() => undefined);
    }
  }

  #hasStopped(): boolean {
    return this.#stopped.signal.aborted;
  }
}
