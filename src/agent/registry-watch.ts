import type { Logger } from '../telemetry/logger.ts';
import { processStart } from '../telemetry/process-start.ts';
import { isOwnProcess } from './own-process.ts';

/** How often silence is measured within the timeout. */
const CHECKS_PER_TIMEOUT = 10;

/**
 * Ends a registry process that has fallen silent. A registry that accepts connections and says
 * nothing is the one failure that old containerd versions never leave (they wait for ever), while
 * a refused connection sends them to the upstream at once.
 */
export class RegistryWatch {
  readonly #log: Logger;
  readonly #kill: (pid: number) => void;
  readonly #onEnded: () => void;
  readonly #isOurs: (pid: number) => Promise<boolean>;

  /** @param dependencies.isOurs whether a process may be this node's registry; the rest is left alone */
  constructor(dependencies: {
    log: Logger;
    kill: (pid: number) => void;
    onEnded: () => void;
    isOurs?: (pid: number) => Promise<boolean>;
  }) {
    this.#log = dependencies.log;
    this.#kill = dependencies.kill;
    this.#onEnded = dependencies.onEnded;
    this.#isOurs = dependencies.isOurs ?? isOwnProcess;
  }

  /**
   * Watches one process until `stop` is called.
   *
   * @param options.timeoutMs silence for longer than this, measured while this process itself
   *   was running, ends the watched one
   * @returns undefined when the process cannot be seen from here, or is another program's
   */
  async start(options: {
    readonly pid: number;
    readonly timeoutMs: number;
    readonly processStart: string;
  }): Promise<{ beat(): void; stop(): void } | undefined> {
    const { pid, timeoutMs } = options;
    const startedAt = await processStart(pid);
    if (startedAt === '' || startedAt !== options.processStart) return undefined;
    // Whoever speaks for the registry must not be able to have anything else on this node ended.
    if (!(await this.#isOurs(pid))) return undefined;
    const intervalMs = Math.max(20, Math.floor(timeoutMs / CHECKS_PER_TIMEOUT));
    let silentChecks = 0;
    let lastCheckMs = performance.now();
    const timer = setInterval(() => {
      const nowMs = performance.now();
      // This process has itself stood still: what it missed meanwhile proves nothing.
      const overslept = nowMs - lastCheckMs > 3 * intervalMs;
      lastCheckMs = nowMs;
      silentChecks = overslept ? 0 : silentChecks + 1;
      if (silentChecks < CHECKS_PER_TIMEOUT) return;
      clearInterval(timer);
      void this.#end(pid, timeoutMs, startedAt);
    }, intervalMs);
    timer.unref();
    return {
      beat: () => {
        silentChecks = 0;
      },
      stop: () => clearInterval(timer),
    };
  }

  async #end(pid: number, timeoutMs: number, startedAt: string): Promise<void> {
    const now = await processStart(pid);
    // The number may have passed to another process, which must live.
    if (now !== startedAt) return;
    this.#log.error({ pid, timeoutMs }, 'ending a registry process that has fallen silent');
    this.#onEnded();
    try {
      this.#kill(pid);
    } catch (error) {
      this.#log.error({ pid, err: error }, 'cannot end the silent registry process');
    }
  }
}
