import { readFile } from 'node:fs/promises';
import type { Logger } from '../telemetry/logger.ts';

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

  constructor(dependencies: { log: Logger; kill: (pid: number) => void; onEnded: () => void }) {
    this.#log = dependencies.log;
    this.#kill = dependencies.kill;
    this.#onEnded = dependencies.onEnded;
  }

  /**
   * Watches one process until `stop` is called.
   *
   * @param options.timeoutMs silence for longer than this, measured while this process itself
   *   was running, ends the watched one
   */
  start(options: { readonly pid: number; readonly timeoutMs: number }): {
    beat(): void;
    stop(): void;
  } {
    const { pid, timeoutMs } = options;
    const intervalMs = Math.max(20, Math.floor(timeoutMs / CHECKS_PER_TIMEOUT));
    const startedAt = startTimeOf(pid);
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

  async #end(pid: number, timeoutMs: number, startedAt: Promise<string>): Promise<void> {
    const [before, now] = await Promise.all([startedAt, startTimeOf(pid)]);
    // The number may have passed to another process, which must live.
    if (now === '' || now !== before) return;
    this.#log.error({ pid, timeoutMs }, 'ending a registry process that has fallen silent');
    this.#onEnded();
    try {
      this.#kill(pid);
    } catch (error) {
      this.#log.error({ pid, err: error }, 'cannot end the silent registry process');
    }
  }
}

// Field 22 of proc_pid_stat(5), counted from behind the command's closing parenthesis.
async function startTimeOf(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
