import { InvalidArgumentError, Option, type Command } from 'commander';

import { parseQuantity } from '../config/quantity.ts';
import { addCommand, load, run, type ProgramDependencies } from './configured-command.ts';
import { ExitStatus } from './exit-status.ts';
import type { ReportOptions } from './report.ts';

/** What a proof reads at a time must not take longer than registries wait for their clients. */
const MIN_BANDWIDTH = 64 * 1024;
/** Registries answer eight requests of proofs at a time. */
const MAX_CONCURRENCY = 8;

/** `salvor report`: which images would still start if their registries were gone. */
export function addReport(program: Command, dependencies: ProgramDependencies): void {
  addCommand(program, {
    name: 'report',
    summary: 'Tell which images would still start if their registries were gone, worst first.',
    settings: [
      'agent.admin',
      'agent.report.memberTimeoutMs',
      'registry.agentSocket',
      'registry.proveSocket',
    ],
  })
    .option('--json', 'Print JSON.', false)
    .option('--all', 'Show every image, not only the worst.', false)
    .addOption(
      new Option('--limit <number>', 'How many images are shown.').default(20).argParser(countOf),
    )
    .option('--image <pattern>', 'Only images such as docker.io/library/*.')
    .option('--platform <platform>', 'Only for this platform, such as linux/arm64.')
    .option('--node <name>', 'Only images of which this node has something.')
    .addOption(
      new Option(
        '--verdict <verdict>',
        'Only images that are not-servable, single-copy or that survive (survives); may be given again.',
      )
        .default([])
        .argParser(severalOf(['not-servable', 'single-copy', 'survives'])),
    )
    .addOption(
      new Option(
        '--fail-on <what>',
        'Exit with 3 if an image is not-servable, or single-copy or worse; with 4 if the report is ' +
          'incomplete. May be given again.',
      )
        .default([])
        .argParser(severalOf(['not-servable', 'single-copy', 'incomplete'])),
    )
    .option('--progress', 'Tell on standard error how far it is.', false)
    .option(
      '--prove',
      'Pull every image as a new node would with every registry dead, hash every byte and exit ' +
        'with 5 if a verdict differs, with 6 if it was stopped before the end.',
      false,
    )
    .addOption(
      new Option('--bandwidth <rate>', 'What a proof reads from nodes, at most.')
        .default(50 * 1024 ** 2, '50MiB/s')
        .argParser(rateOf),
    )
    .addOption(
      new Option('--concurrency <number>', 'Images that a proof pulls at a time.')
        .default(2)
        .argParser(workersOf),
    )
    .action(
      async (
        options: Omit<ReportOptions, 'progress'> & { progress: boolean },
        command: Command,
      ) => {
        const config = await load(command, dependencies);
        await run(dependencies, async ({ signal }) => {
          const { runReport } = await import('./report.ts');
          const progress = options.progress || dependencies.isErrorTerminal === true;
          const code = await runReport(config, { ...options, progress, signal }, dependencies);
          if (code !== 0) throw new ExitStatus(code);
        });
      },
    );
}

/** For an option that may be given again, each time with one of these words. */
function severalOf(words: readonly string[]) {
  return (text: string, before: readonly string[]): string[] => {
    if (words.includes(text)) return [...before, text];
    throw new InvalidArgumentError(
      `It must be ${words.slice(0, -1).join(', ')} or ${words.at(-1) ?? ''}.`,
    );
  };
}

function countOf(text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new InvalidArgumentError('It must be a whole number, 1 or more.');
  }
  return count;
}

function rateOf(text: string): number {
  const rate = parseQuantity(text, 'bytes per second');
  if (rate === undefined || rate < MIN_BANDWIDTH) {
    throw new InvalidArgumentError('It must be a rate such as 50MiB/s, 64KiB/s or more.');
  }
  return rate;
}

function workersOf(text: string): number {
  const count = countOf(text);
  if (count > MAX_CONCURRENCY) {
    throw new InvalidArgumentError(`It must be ${MAX_CONCURRENCY} or less.`);
  }
  return count;
}
