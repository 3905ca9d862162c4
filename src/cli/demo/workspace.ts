import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The demo's one directory, and everything that has to end before it goes. */
export class Workspace implements AsyncDisposable {
  readonly directory: string;
  readonly #ends: (() => Promise<void>)[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<Workspace> {
    return new Workspace(await mkdtemp(join(tmpdir(), 'salvor-demo-')));
  }

  /** Registers what is to be ended; the last one ends first. */
  defer(end: () => Promise<void>): void {
    this.#ends.push(end);
  }

  /** Ends everything and removes the directory. Goes on when something cannot be ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends.reverse()) await end().catch(() => undefined);
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A loopback port that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port: 0 }, resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
