import type { AgentClient } from '../rpc/agent-client.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Signs within the time after which silence counts. */
const BEATS_PER_TIMEOUT = 5;
/** Until the agent is told again after it has gone, milliseconds. */
const RECONNECT_MS = 1000;

/**
 * Tells the own agent, as long as the event loop turns, that this process is alive, so that the
 * agent ends it when it no longer is (see RegistryWatch in the agent).
 */
export class SignOfLife {
  readonly #timeoutMs: number;
  readonly #agent: Pick<AgentClient, 'watch'>;
  readonly #log: Logger;
  #watch: ReturnType<AgentClient['watch']> | undefined;
  #beat: NodeJS.Timeout | undefined;
  #reconnect: NodeJS.Timeout | undefined;

  /** @param options.timeoutMs silence for longer than this ends the process */
  constructor(
    options: { readonly timeoutMs: number },
    dependencies: { agent: Pick<AgentClient, 'watch'>; log: Logger },
  ) {
    this.#timeoutMs = options.timeoutMs;
    this.#agent = dependencies.agent;
    this.#log = dependencies.log;
  }

  start(): void {
    this.#open();
    this.#beat = setInterval(() => this.#watch?.beat(), this.#timeoutMs / BEATS_PER_TIMEOUT);
    this.#beat.unref();
  }

  /** Parts in peace: silence after this means nothing. */
  stop(): void {
    clearInterval(this.#beat);
    clearTimeout(this.#reconnect);
    this.#beat = undefined;
    this.#watch?.end();
    this.#watch = undefined;
  }

  #open(): void {
    this.#watch = this.#agent.watch({ pid: process.pid, timeoutMs: this.#timeoutMs }, (error) => {
      this.#watch = undefined;
      if (this.#beat === undefined) return;
      this.#log.debug({ err: error }, 'the agent does not hear this process');
      this.#reconnect = setTimeout(() => this.#open(), RECONNECT_MS);
      this.#reconnect.unref();
    });
  }
}
