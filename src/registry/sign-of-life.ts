import type { AgentClient } from '../rpc/agent-client.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Signs within the time after which silence counts. */
const BEATS_PER_TIMEOUT = 5;
/** Until the agent is told again after it has gone, milliseconds. */
const RECONNECT_MS = 1000;

/** Until the agent is taken not to answer at all, milliseconds. */
const BEGIN_MS = 1000;

/**
 * Tells the own agent, as long as the event loop turns, that this process is alive, so that the
 * agent ends it when it no longer is (see RegistryWatch in the agent).
 */
export class SignOfLife {
  readonly #options: { readonly timeoutMs: number; readonly processStart: string };
  readonly #agent: Pick<AgentClient, 'watch'>;
  readonly #onChange: (isWatched: boolean) => void;
  readonly #log: Logger;
  #watch: ReturnType<AgentClient['watch']> | undefined;
  #beat: NodeJS.Timeout | undefined;
  #pending: NodeJS.Timeout | undefined;

  /**
   * @param options.timeoutMs silence for longer than this ends the process
   * @param options.processStart of this process, as in process-start.ts
   * @param dependencies.onChange told whether the agent watches, whenever that may have changed
   */
  constructor(
    options: { readonly timeoutMs: number; readonly processStart: string },
    dependencies: {
      agent: Pick<AgentClient, 'watch'>;
      onChange: (isWatched: boolean) => void;
      log: Logger;
    },
  ) {
    this.#options = options;
    this.#agent = dependencies.agent;
    this.#onChange = dependencies.onChange;
    this.#log = dependencies.log;
  }

  start(): void {
    const { timeoutMs } = this.#options;
    this.#beat = setInterval(() => this.#watch?.beat(), timeoutMs / BEATS_PER_TIMEOUT);
    this.#beat.unref();
    this.#open();
  }

  /** Parts in peace: silence after this means nothing. */
  stop(): void {
    clearInterval(this.#beat);
    clearTimeout(this.#pending);
    this.#beat = undefined;
    this.#watch?.end();
    this.#watch = undefined;
  }

  #open(): void {
    this.#schedule(() => this.#onChange(false), BEGIN_MS);
    this.#watch = this.#agent.watch(
      { pid: process.pid, ...this.#options },
      {
        onBegin: () => {
          clearTimeout(this.#pending);
          this.#onChange(true);
        },
        onEnd: (error) => {
          this.#watch = undefined;
          if (this.#beat === undefined) return;
          this.#log.debug({ err: error }, 'the agent does not watch this process');
          this.#onChange(false);
          this.#schedule(() => this.#open(), RECONNECT_MS);
        },
      },
    );
  }

  #schedule(run: () => void, delayMs: number): void {
    clearTimeout(this.#pending);
    this.#pending = setTimeout(run, delayMs);
    this.#pending.unref();
  }
}
