import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Workspace } from './workspace.ts';

const STOP_TIMEOUT_MS = 5000;
const MAX_LINES = 20_000;
const LINES_IN_ERRORS = 5;

/** What a child sends over its channel. */
export type ChildMessage = Readonly<Record<string, unknown>>;

/** A process that the demo runs, with the lines that it writes. It ends with the workspace. */
export class Child {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #exited: Promise<unknown>;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#process = child;
    this.#exited = once(child, 'exit');
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream as Readable }).on('line', (line) => {
        this.#lines.push(line);
        if (this.#lines.length > MAX_LINES) this.#lines.shift();
        child.emit('demo-line');
      });
    }
  }

  /**
   * @param options.channel gives the child a channel for messages
   * @throws when the program cannot be started
   */
  static async start(
    workspace: Workspace,
    name: string,
    options: {
      readonly command: string;
      readonly arguments: readonly string[];
      readonly env?: NodeJS.ProcessEnv;
      readonly channel?: boolean;
    },
  ): Promise<Child> {
    const child = spawn(options.command, options.arguments, {
      cwd: workspace.directory,
      env: options.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe', ...(options.channel === true ? (['ipc'] as const) : [])],
    });
    const started = new Child(name, child);
    await once(child, 'spawn');
    workspace.defer(() => started.stop());
    return started;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  get hasExited(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  /**
   * Waits for something that shows in the child's lines.
   *
   * @throws when it does not come in time or the child ends
   */
  async waitFor<T>(what: string, look: () => T | undefined, timeoutMs = 20_000): Promise<T> {
    const deadline = AbortSignal.timeout(timeoutMs);
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (this.hasExited || deadline.aborted) {
        const last = this.#lines.slice(-LINES_IN_ERRORS).join('\n');
        throw new Error(`Cannot see ${what} of ${this.name}; its last lines:\n${last}`);
      }
      await Promise.race([
        once(this.#process, 'demo-line', { signal: deadline }).catch(() => undefined),
        this.#exited,
      ]);
    }
  }

  /** Listens to what the child sends over its channel. */
  onMessage(listener: (message: ChildMessage) => void): void {
    this.#process.on('message', (message) => listener(message as ChildMessage));
  }

  send(message: ChildMessage): void {
    this.#process.send(message);
  }

  /** Sends a signal; SIGKILL also waits for the end. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#process.kill(signal);
    if (signal === 'SIGKILL') await this.#exited;
  }

  /** Asks the child to end, and ends it when it does not. */
  async stop(): Promise<void> {
    if (this.hasExited) return;
    this.#process.kill('SIGTERM');
    this.#process.kill('SIGCONT');
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
  }
}
