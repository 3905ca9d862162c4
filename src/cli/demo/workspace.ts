import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Something that has to end before the demo's directory goes. */
export interface Ending {
  /** Ends it in an orderly way. */
  stop(): Promise<void>;
  /** Ends it at once; called when the process exits and nothing can be waited for. */
  kill(): void;
}

/** The demo's one directory, and everything that runs in it. */
export class Workspace implements AsyncDisposable {
  readonly directory: string;
  /** Whether the lines that processes write are repeated on standard error. */
  readonly echo: boolean;
  readonly #endings = new Set<Ending>();
  readonly #ended = new AbortController();
  readonly #onExit: () => void;

  private constructor(directory: string, echo: boolean) {
    this.directory = directory;
    this.echo = echo;
    // A second Ctrl-C exits without waiting: nothing may be left behind then either.
    this.#onExit = () => {
      for (const ending of this.#endings) ending.kill();
      rmSync(directory, { recursive: true, force: true });
    };
    process.once('exit', this.#onExit);
  }

  static async open(options: { readonly echo?: boolean } = {}): Promise<Workspace> {
    const parent = await realpath(tmpdir());
    const directory = await mkdtemp(join(parent, 'salvor-demo-'));
    return new Workspace(directory, options.echo === true);
  }

  /** Aborts as soon as everything is to end. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /**
   * Registers what is to be ended.
   *
   * @throws when everything is ending already
   */
  add(ending: Ending): void {
    this.signal.throwIfAborted();
    this.#endings.add(ending);
  }

  /** Ends everything that runs, all at once; whoever waits for any of it fails. */
  async end(): Promise<void> {
    this.#ended.abort(new Error('Interrupted'));
    await Promise.allSettled(Array.from(this.#endings, (ending) => ending.stop()));
  }

  /** Ends everything and removes the directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await unmountBelow(this.directory);
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
    process.off('exit', this.#onExit);
  }
}

/**
 * Finds loopback ports that nobody listens on at this moment.
 *
 * @returns as many different ports as were asked for
 */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, listen));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function listen(): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port: 0 }, resolve);
  });
  return server;
}

// A daemon that ends while it unpacks leaves a mount, and removing files would follow it.
async function unmountBelow(directory: string): Promise<void> {
  const mounts = await readFile('/proc/self/mounts', 'utf8').catch(() => '');
  const below = mounts
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${directory}/`));
  for (const path of below.reverse()) await run('umount', ['-l', path]).catch(() => undefined);
}
