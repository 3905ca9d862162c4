import { InvalidArgumentError, type Command } from 'commander';
import { parseQuantity } from '../config/quantity.ts';

/** What these commands need of the program that they are part of. */
export interface UninstallDependencies {
  /** Runs a command until its end, or until the signal. */
  readonly run: (
    body: (context: { readonly signal: AbortSignal }) => Promise<void>,
  ) => Promise<void>;
  readonly writeOut: (text: string) => void;
  readonly writeError: (text: string) => void;
}

/** `salvor uninstall`: what the Helm chart's hooks run when a release is deleted. */
export function addUninstall(program: Command, dependencies: UninstallDependencies): void {
  const { run } = dependencies;
  const group = program
    .command('uninstall')
    .summary('Parts of the removal from a cluster; the Helm chart runs them.')
    .description('Parts of the removal from a cluster. `helm uninstall` runs them in their order.');
  group
    .command('await')
    .description('Wait until the pods of a DaemonSet have restored their nodes.')
    .requiredOption('--namespace <name>', 'Of the DaemonSet and the Secrets.')
    .requiredOption('--daemon-set <name>', 'Whose pods restore the nodes.')
    .option('--secret <name>', 'A Secret to delete afterwards. May be given again.', also, [])
    .option('--timeout <time>', 'For all nodes together.', time, 600_000)
    .action(async (options: AwaitFlags) => {
      await run(async ({ signal }) => {
        const { runUninstallAwait } = await import('./uninstall.ts');
        const { secret: secrets, timeout: timeoutMs, ...others } = options;
        await runUninstallAwait({ ...others, secrets, timeoutMs, signal }, dependencies);
      });
    });
  group
    .command('state')
    .description('Delete what Salvor keeps on this node.')
    .requiredOption('--directory <path>', 'node.stateDirectory; it is emptied.')
    .action(async ({ directory }: { directory: string }) => {
      await run(async ({ signal }) => {
        const { runUninstallState } = await import('./uninstall.ts');
        await runUninstallState(directory, { signal }, dependencies);
      });
    });
  group
    .command('hold')
    .description('Do nothing until told to stop, so that a pod is there to be seen.')
    .action(async () => {
      await run(async ({ signal }) => {
        const { runUninstallHold } = await import('./uninstall.ts');
        await runUninstallHold(signal, dependencies);
      });
    });
}

interface AwaitFlags {
  readonly namespace: string;
  readonly daemonSet: string;
  readonly secret: readonly string[];
  readonly timeout: number;
}

function also(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function time(text: string): number {
  const timeMs = parseQuantity(text, 'milliseconds');
  if (timeMs === undefined) throw new InvalidArgumentError('It must be a time such as 10min.');
  return timeMs;
}
