import { fileURLToPath } from 'node:url';
import { Child, type ChildMessage } from './child.ts';
import type { Workspace } from './workspace.ts';

/** What the upstream serves: a directory of the demo's own, or a real registry behind it. */
export type UpstreamContent = { readonly directory: string } | { readonly forwardTo: string };

// The sources run as .ts, the built program as .js.
const EXTENSION = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const PROGRAM = fileURLToPath(new URL(`./upstream-program.${EXTENSION}`, import.meta.url));

/** The registry of the demo: a process that can be killed, and started again at the same port. */
export class UpstreamProcess {
  readonly port: number;
  readonly #workspace: Workspace;
  readonly #content: UpstreamContent;
  #child: Child | undefined;

  constructor(workspace: Workspace, options: { port: number; content: UpstreamContent }) {
    this.#workspace = workspace;
    this.port = options.port;
    this.#content = options.content;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#running().pid;
  }

  async start(): Promise<void> {
    const content = this.#content;
    const what =
      'directory' in content ? ['serve', content.directory] : ['forward', content.forwardTo];
    this.#child = await Child.start(this.#workspace, 'upstream', {
      command: process.execPath,
      arguments: [PROGRAM, ...what, String(this.port)],
      channel: true,
    });
    const child = this.#child;
    await child.waitFor('the port', () => child.lines.find((line) => line === 'listening'));
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    await this.#running().kill('SIGKILL');
  }

  /**
   * Slows bodies down and kills the process when so many bytes of one blob have passed.
   *
   * @returns settles when it has been killed
   */
  killInTheMiddle(
    digest: string,
    options: { afterBytes: number; bytesPerSecond: number },
  ): Promise<void> {
    const child = this.#running();
    child.send({ bytesPerSecond: options.bytesPerSecond });
    return new Promise((resolve) => {
      child.onMessage((message: ChildMessage) => {
        const { path, passed } = message;
        if (typeof path !== 'string' || !path.includes(digest)) return;
        if (typeof passed === 'number' && passed >= options.afterBytes) {
          void child.kill('SIGKILL').then(resolve);
        }
      });
    });
  }

  #running(): Child {
    if (this.#child === undefined) throw new Error('Cannot use the upstream before its start');
    return this.#child;
  }
}
