import type { Command } from 'commander';

import { loadConfig, type LoadOptions } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import type { Environment } from '../config/sources.ts';
import type { CommandContext, CommandLoaders } from './command.ts';
import { addSettingFlags, settingValues } from './setting-flags.ts';
import { listenForShutdown, type SignalSource } from './shutdown-signal.ts';

/** The outside world of a command line, as `process` has it. */
export interface ProgramDependencies {
  readonly version: string;
  readonly env: Environment;
  readonly signals: SignalSource;
  readonly loaders: CommandLoaders;
  readonly writeOut: (text: string) => void;
  readonly writeError: (text: string) => void;
  /** Somebody may be looking at what goes to standard error. */
  readonly isErrorTerminal?: boolean;
}

/**
 * Adds a command that is configured as everything else is: by a file, the environment and flags.
 *
 * @param options.settings sections or keys of the configuration that it has flags for; all unless told
 */
export function addCommand(
  parent: Command,
  options: {
    readonly name: string;
    readonly summary: string;
    readonly settings?: readonly string[];
  },
): Command {
  const command = parent
    .command(options.name)
    .summary(options.summary)
    .description(
      `${options.summary}\n\nEvery setting can also be given in the file or as an environment ` +
        'variable:\n--log-level is log.level in the file and SALVOR_LOG_LEVEL in the environment.',
    )
    .helpOption('-h, --help', 'Print help.')
    .allowExcessArguments(false)
    .option('-c, --config <file>', 'JSON or YAML file with settings. Default: $SALVOR_CONFIG.');
  addSettingFlags(command, options.settings);
  return command;
}

/**
 * The configuration that a command was called with.
 *
 * @param checkedFor the command whose rules it must meet
 * @throws ConfigError
 */
export async function load(
  command: Command,
  dependencies: ProgramDependencies,
  checkedFor: string | undefined = command.name(),
  more: Pick<LoadOptions, 'readHosts'> = {},
): Promise<Config> {
  return await loadConfig({ ...loadOptions(command, dependencies), ...more, command: checkedFor });
}

/** What the configuration of a command is loaded from. */
export function loadOptions(command: Command, dependencies: ProgramDependencies): LoadOptions {
  const { config: file } = command.opts<{ config?: string }>();
  return {
    env: dependencies.env,
    flags: settingValues(command),
    ...(file === undefined ? {} : { file }),
  };
}

/** Runs the body of a command, whose signal aborts when the process is told to end. */
export async function run(
  dependencies: ProgramDependencies,
  body: (context: CommandContext) => Promise<void>,
): Promise<void> {
  using shutdown = listenForShutdown(dependencies.signals);
  await body({ signal: shutdown.signal, version: dependencies.version });
}
