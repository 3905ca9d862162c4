import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { runHosts, type HostsOptions } from '../../../../src/cli/hosts.ts';
import { loadConfig } from '../../../../src/config/load.ts';

/** What `salvor hosts --json` prints, as far as tests look at it. */
export interface HostsOutput {
  readonly isChanged: boolean;
  readonly mirrorUrl: string;
  readonly warnings: readonly string[];
  readonly files: readonly {
    readonly path: string;
    readonly registry: string;
    readonly state: string;
    readonly reason?: string;
    readonly notes: readonly string[];
  }[];
}

export type RunnerOptions = Partial<HostsOptions> & {
  readonly flags?: Readonly<Record<string, string>>;
};

/** Runs `salvor hosts` in this process, on a directory of its own. */
export class HostsRunner {
  readonly directory: string;
  /** Where roots are. */
  readonly tree: string;
  readonly state: string;
  /** What it wrote to standard error. */
  said = '';

  private constructor(directory: string) {
    this.directory = directory;
    this.tree = join(directory, 'tree');
    this.state = join(directory, 'state');
  }

  static async create(): Promise<HostsRunner> {
    const runner = new HostsRunner(await mkdtemp(join(tmpdir(), 'salvor-hosts-')));
    await mkdir(runner.tree);
    return runner;
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  /** @returns what it printed */
  async run(options: RunnerOptions = {}): Promise<string> {
    const { flags, ...rest } = options;
    let out = '';
    await runHosts(
      await loadConfig({
        command: 'hosts',
        flags: {
          'node.stateDirectory': this.state,
          'agent.store.containerd.socket': join(this.directory, 'none.sock'),
          ...flags,
        },
      }),
      {
        verb: 'write',
        configPath: join(this.tree, 'certs.d'),
        containerdConfig: join(this.directory, 'config.toml'),
        containerdVersion: '2.2.7',
        dryRun: false,
        force: false,
        json: false,
        wait: false,
        share: '100',
        ...rest,
      },
      {
        signal: AbortSignal.timeout(20_000),
        writeOut: (text) => (out += text),
        writeError: (text) => (this.said += text),
      },
    );
    return out;
  }

  async write(options: RunnerOptions = {}): Promise<HostsOutput> {
    return JSON.parse(await this.run({ json: true, ...options })) as HostsOutput;
  }

  async restore(options: RunnerOptions = {}): Promise<string> {
    return this.run({ verb: 'restore', ...options });
  }
}
