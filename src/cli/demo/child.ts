import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Workspace } from './workspace.ts';

const STOP_TIMEOUT_MS = 5000;
const WAIT_TIMEOUT_MS = 60_000;
const MAX_LINES = 20_000;
const LINES_IN_ERRORS = 5;

/** What a child sends over its channel. */
export type ChildMessage = Readonly<Record<string, unknown>>;

export interface ChildOptions {
  readonly command: string;
  readonly arguments: readonly string[];
  /** Gives the child a channel for messages. */
  readonly channel?: boolean;
  /** The child may use the proxy that the environment names, to reach other machines. */
  readonly proxy?: boolean;
}

/** A process that the demo runs, with the lines that it writes. It ends with the workspace. */
export class Child {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #listeners = new Set<(line: string) => void>();
  readonly #exited: Promise<void>;
  #failure: Error | undefined;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#process = child;
    this.#exited = new Promise((resolve) => {
      child.once('exit', () => resolve());
      // It could not be started, or a message did not reach it any more.
      child.on('error', (error) => {
        this.#failure = error;
        if (child.pid === undefined) resolve();
      });
    });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream as Readable }).on('line', (line) => this.#take(line));
    }
  }

  /** @throws when the program cannot be started, or everything is ending */
  static async start(workspace: Workspace, name: string, options: ChildOptions): Promise<Child> {
    workspace.signal.throwIfAborted();
    const child = spawn(options.command, options.arguments, {
      cwd: workspace.directory,
      env: childEnvironment(process.env, { proxy: options.proxy === true }),
      stdio: ['ignore', 'pipe', 'pipe', ...(options.channel === true ? (['ipc'] as const) : [])],
    });
    const started = new Child(name, child);
    if (workspace.echo) started.onLine((line) => process.stderr.write(`${name}: ${line}\n`));
    workspace.add({ stop: () => started.stop(), kill: () => void child.kill('SIGKILL') });
    await once(child, 'spawn');
    return started;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get hasExited(): boolean {
    const { pid, exitCode, signalCode } = this.#process;
    return pid === undefined || exitCode !== null || signalCode !== null;
  }

  /**
   * Listens to the lines that come from now on.
   *
   * @returns ends the listening
   */
  onLine(listener: (line: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Waits for something that shows with one of the child's lines, an earlier one included.
   *
   * @param isThere looks for it
   * @throws when it does not come in time or the child ends
   */
  async waitFor(
    what: string,
    isThere: (lines: readonly string[]) => boolean,
    timeoutMs = WAIT_TIMEOUT_MS,
  ): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs);
    for (;;) {
      if (isThere(this.#lines)) return;
      if (this.hasExited || deadline.aborted) {
        const last = this.#failure?.message ?? this.#lines.slice(-LINES_IN_ERRORS).join('\n');
        throw new Error(`Cannot see ${what} of ${this.name}: it says ${last || 'nothing'}`);
      }
      await new Promise<void>((resolve) => {
        const done = (): void => {
          off();
          deadline.removeEventListener('abort', done);
          resolve();
        };
        const off = this.onLine(done);
        deadline.addEventListener('abort', done);
        void this.#exited.then(done);
      });
    }
  }

  /** Listens to what the child sends over its channel. */
  onMessage(listener: (message: ChildMessage) => void): void {
    this.#process.on('message', (message) => listener(message as ChildMessage));
  }

  send(message: ChildMessage): void {
    this.#process.send(message);
  }

  /** SIGKILL, and waits for the end. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }

  /** Asks the child to end, and ends it when it does not. */
  async stop(): Promise<void> {
    if (this.hasExited) return;
    this.#process.kill('SIGTERM');
    // It may have been stopped by hand.
    this.#process.kill('SIGCONT');
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  #take(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > MAX_LINES) this.#lines.shift();
    for (const listener of this.#listeners) listener(line);
  }
}

/**
 * The environment of a child: settings of Salvor that are meant for another process must not
 * change what the demo shows, and what runs on loopback is not reached through a proxy.
 */
export function childEnvironment(
  env: NodeJS.ProcessEnv,
  options: { readonly proxy: boolean },
): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(
    ([name]) => !name.startsWith('SALVOR_') && (options.proxy || !/_proxy$/i.test(name)),
  );
  return { ...Object.fromEntries(kept), ...(options.proxy ? { NODE_USE_ENV_PROXY: '1' } : {}) };
}
