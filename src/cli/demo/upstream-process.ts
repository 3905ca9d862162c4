import { Child, type ChildMessage } from './child.ts';
import type { Workspace } from './workspace.ts';

/** What the upstream serves: a directory of the demo's own, or a real registry behind it. */
export type UpstreamContent = { readonly directory: string } | { readonly forwardTo: string };

// The sources run as .ts, the built program as .js.
const EXTENSION = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const PROGRAM = `${import.meta.dirname}/upstream-program.${EXTENSION}`;

/** The registry of the demo: a process that can be killed, and started again at the same port. */
export class UpstreamProcess {
  readonly port: number;
  readonly content: UpstreamContent;
  readonly #workspace: Workspace;
  #child: Child | undefined;

  constructor(workspace: Workspace, options: { port: number; content: UpstreamContent }) {
    this.#workspace = workspace;
    this.port = options.port;
    this.content = options.content;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#current().pid;
  }

  get isAlive(): boolean {
    return this.#child?.hasExited === false;
  }

  /** The program and its arguments, as a shell would start it. */
  get command(): readonly string[] {
    const { content } = this;
    const what =
      'directory' in content ? ['serve', content.directory] : ['forward', content.forwardTo];
    return [process.execPath, PROGRAM, ...what, String(this.port)];
  }

  async start(): Promise<void> {
    const [command = '', ...rest] = this.command;
    const child = await Child.start(this.#workspace, 'the upstream', {
      command,
      arguments: rest,
      channel: true,
      proxy: 'forwardTo' in this.content,
    });
    this.#child = child;
    await child.waitFor('the port', (lines) => lines.includes('listening'));
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    await this.#current().kill();
  }

  /**
   * Kills the process when it has sent so many bytes of one blob; not one more leaves it.
   *
   * @returns settles when it has been killed
   */
  killInTheMiddle(digest: string, afterBytes: number): Promise<void> {
    const child = this.#current();
    child.send({ haltAt: digest, afterBytes });
    return new Promise((resolve) => {
      child.onMessage((message: ChildMessage) => {
        if ('halted' in message) void child.kill().then(resolve);
      });
    });
  }

  #current(): Child {
    if (this.#child === undefined) throw new Error('Cannot use the upstream before its start');
    return this.#child;
  }
}
