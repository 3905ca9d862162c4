import type { Logger } from '../telemetry/logger.ts';
import { startWatchdog, type Watchdog } from '../telemetry/watchdog.ts';

/**
 * A watchdog thread that runs only while nobody else watches this process: it costs about 10 MB on
 * every node.
 */
export class WatchdogSwitch {
  readonly #timeoutMs: number;
  readonly #log: Logger;
  #watchdog: Watchdog | undefined;

  /** @param options.timeoutMs as in startWatchdog */
  constructor(options: { readonly timeoutMs: number }, dependencies: { log: Logger }) {
    this.#timeoutMs = options.timeoutMs;
    this.#log = dependencies.log;
  }

  /** Starts or ends the thread. Harmless when it is as wanted already. */
  turn(on: boolean): void {
    if (on) {
      this.#watchdog ??= startWatchdog({ timeoutMs: this.#timeoutMs }, this.#log);
      return;
    }
    void this.#watchdog?.stop();
    this.#watchdog = undefined;
  }

  /** Ends the thread and waits for it. */
  async stop(): Promise<void> {
    await this.#watchdog?.stop();
    this.#watchdog = undefined;
  }
}
