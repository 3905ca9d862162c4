import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, type WriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { TestScope } from './test-scope.ts';
import { waitFor, waitForPort, waitForSocket, type WaitOptions } from './wait.ts';

const maxLinesKept = 50_000;
const maxLogBytes = 64 * 1024 * 1024;
const linesInErrors = 15;
const stopTimeoutMs = 10_000;
const setprivPath = '/usr/bin/setpriv';
const running = new Set<ChildProcess>();

// The second of two belts: setpriv's death signal already covers a parent that is killed.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** What to start. */
export interface ProgramOptions {
  /** Names the log file. */
  readonly name: string;
  readonly command: string;
  readonly arguments: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

/** One line that a program wrote. */
export interface LogLine {
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
}

/** How a program ended. */
export interface ProgramExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A program that runs until its scope ends, with everything it wrote: in memory (the last 50,000
 * lines) and in `<scope directory>/<name>.log` (the first 64 MiB). It does not outlive this
 * process, whatever ends that.
 */
export class Program {
  readonly name: string;
  readonly logPath: string;
  /** Settles when the program has ended and its output was read. Never rejects. */
  readonly exited: Promise<ProgramExit>;
  readonly #child: ChildProcess;
  readonly #log: WriteStream;
  readonly #ended = new AbortController();
  #lines: LogLine[] = [];
  #linesDropped = 0;
  #logBytes = 0;

  private constructor(scope: TestScope, options: ProgramOptions) {
    this.name = options.name;
    this.logPath = join(scope.directory, `${options.name}.log`);
    this.#log = createWriteStream(this.logPath, { flags: 'a' });
    // A child that outlives a killed test run would hold ports and mounts for ever.
    const wrapped = existsSync(setprivPath);
    this.#child = spawn(
      wrapped ? setprivPath : options.command,
      [...(wrapped ? ['--pdeathsig', 'KILL', '--', options.command] : []), ...options.arguments],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: options.env ?? process.env,
        cwd: options.cwd ?? scope.directory,
      },
    );
    running.add(this.#child);
    const { stdout, stderr } = this.#child as { stdout: Readable; stderr: Readable };
    this.#collect('stdout', stdout);
    this.#collect('stderr', stderr);
    this.exited = this.#watch();
    scope.defer(() => this.stop());
  }

  /**
   * Starts a program that ends with the scope.
   *
   * @throws when the command cannot be started
   */
  static async start(scope: TestScope, options: ProgramOptions): Promise<Program> {
    const program = new Program(scope, options);
    await once(program.#child, 'spawn');
    return program;
  }

  /** The process id. It stays the same when the program has ended. */
  get pid(): number {
    return this.#child.pid!;
  }

  get hasExited(): boolean {
    return this.#ended.signal.aborted;
  }

  /** How many lines were written so far: a mark for {@link Program.lines}. */
  get lineCount(): number {
    return this.#linesDropped + this.#lines.length;
  }

  /** What was written, from the mark on. */
  lines(from = 0): readonly LogLine[] {
    return this.#lines.slice(Math.max(0, from - this.#linesDropped));
  }

  /**
   * Waits for a line, those already written included.
   *
   * @param options.from mark from which on lines count
   * @throws when it does not come in time or the program ends without it
   */
  async waitForLine(
    pattern: RegExp,
    options: WaitOptions & { readonly from?: number } = {},
  ): Promise<string> {
    return waitFor(
      () => this.lines(options.from).find((line) => pattern.test(line.text))?.text,
      this.#describe(`a line like ${pattern.source} from ${this.name}`, options),
    );
  }

  /** Waits until the program accepts connections on a loopback port. */
  async waitForPort(port: number, options: WaitOptions = {}): Promise<void> {
    await waitForPort(port, this.#describe(`${this.name} on port ${port}`, options));
  }

  /** Waits until the program accepts connections on a unix socket. */
  async waitForSocket(path: string, options: WaitOptions = {}): Promise<void> {
    await waitForSocket(path, this.#describe(`${this.name} on ${path}`, options));
  }

  /**
   * Sends a signal. SIGKILL also waits for the end, SIGSTOP until the process stands still.
   */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child.kill(signal);
    if (signal === 'SIGKILL') await this.exited;
    if (signal === 'SIGSTOP') {
      await waitFor(async () => (await processState(this.pid)) === 'T', { what: 'it standing' });
    }
  }

  /** Asks the program to end, and ends it when it does not. Harmless when it has ended. */
  async stop(timeoutMs = stopTimeoutMs): Promise<void> {
    if (this.hasExited) return;
    this.#child.kill('SIGTERM');
    // A stopped program sees the first signal only when it goes on.
    this.#child.kill('SIGCONT');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    await this.exited;
    clearTimeout(timer);
  }

  #describe(what: string, options: WaitOptions): WaitOptions {
    const detail = (): string =>
      this.lines(this.lineCount - linesInErrors)
        .map((line) => line.text)
        .join('\n');
    return { what, detail, signal: this.#ended.signal, ...options };
  }

  #collect(stream: LogLine['stream'], source: Readable): void {
    createInterface({ input: source, crlfDelay: Infinity }).on('line', (text) => {
      this.#lines.push({ stream, text });
      if (this.#lines.length > 2 * maxLinesKept) {
        this.#linesDropped += maxLinesKept;
        this.#lines = this.#lines.slice(maxLinesKept);
      }
      this.#logBytes += text.length + 1;
      if (this.#logBytes <= maxLogBytes) this.#log.write(`${text}\n`);
    });
  }

  async #watch(): Promise<ProgramExit> {
    const { promise, resolve } = Promise.withResolvers<ProgramExit>();
    this.#child.once('error', () => resolve({ code: null, signal: null }));
    this.#child.once('close', (code, signal) => resolve({ code, signal }));
    const exit = await promise;
    running.delete(this.#child);
    this.#ended.abort(`${this.name} ended with ${exit.signal ?? exit.code ?? 'an error'}`);
    this.#log.end();
    return exit;
  }
}

/** @returns the letter that proc_pid_stat(5) gives, as "T" for a stopped process */
async function processState(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2)[0];
}
