import { Argument, Command, CommanderError, Option } from 'commander';

import { ConfigError } from '../config/config-error.ts';
import { configSchema } from '../config/schema.ts';
import { withoutSecrets } from '../config/secrets.ts';
import { addBootstrapHosts } from './bootstrap-hosts-command.ts';
import { addCerts } from './certs-command.ts';
import type { DemoOptions } from './command.ts';
import { openConfig } from './config-source.ts';
import {
  addCommand,
  load,
  loadOptions,
  run,
  type ProgramDependencies,
} from './configured-command.ts';
import type { DoctorOptions } from './doctor.ts';
import { ExitStatus } from './exit-status.ts';
import type { HostsOptions } from './hosts.ts';
import { listenForHangups } from './hangup-signal.ts';
import { addReport } from './report-command.ts';
import { addUninstall } from './uninstall-commands.ts';

export type { ProgramDependencies } from './configured-command.ts';

const exitCodes = { success: 0, failure: 1, usage: 2 };

const registrySettings = ['node', 'log', 'registry', 'agent.limits.windowBytes', 'tls', 'watchdog'];
const agentSettings = ['node', 'log', 'agent', 'tls', 'watchdog'];
const startSettings = [
  'node',
  'log',
  'start',
  'registry.defaultUpstream',
  'registry.allow',
  'registry.deny',
  'registry.upstreams',
  'registry.mirrors',
  'registry.hostsFile',
  'registry.policies',
  'registry.limits',
  'registry.budgets',
  'agent.limits',
  'agent.integrity',
  'agent.report',
  'watchdog',
];
const demoSettings = ['log'];

/**
 * Parses the arguments after the program's name, loads the configuration and runs the command.
 * Errors go to standard error: every mistake of a configuration, one line for anything else.
 *
 * @returns the exit code: 0; 1 when the command failed; 2 when it was called in a wrong way
 */
export async function runProgram(
  argv: readonly string[],
  dependencies: ProgramDependencies,
): Promise<number> {
  try {
    await createProgram(dependencies).parseAsync(argv, { from: 'user' });
    return exitCodes.success;
  } catch (error) {
    if (error instanceof ExitStatus) return error.code;
    if (error instanceof CommanderError) {
      // Commander has written its message, or the help that was asked for.
      return error.exitCode === 0 ? exitCodes.success : exitCodes.usage;
    }
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof ConfigError) {
      dependencies.writeError(`${message}\n`);
      return exitCodes.usage;
    }
    dependencies.writeError(`salvor: ${message.split('\n', 1)[0] ?? ''}\n`);
    return exitCodes.failure;
  }
}

/** Every command with its flags and help; exported for the documentation's sake. */
export function createProgram(dependencies: ProgramDependencies): Command {
  const program = new Command('salvor')
    .description(
      'Keeps Pods starting when the registry does not: a registry mirror that serves from the ' +
        "upstream, and from other nodes' content stores while the upstream is down.",
    )
    .version(dependencies.version, '-V, --version', 'Print the version.')
    .helpOption('-h, --help', 'Print help.')
    .helpCommand('help [command]', 'Print help for a command.')
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      writeOut: dependencies.writeOut,
      writeErr: dependencies.writeError,
    });
  addServers(program, dependencies);
  addDemo(program, dependencies);
  addConfig(program, dependencies);
  addWhy(program, dependencies);
  addReport(program, dependencies);
  addUnkeep(nodeGroup(program), dependencies);
  addHosts(program, dependencies);
  addDoctor(program, dependencies);
  addCerts(program, dependencies);
  const { writeOut, writeError } = dependencies;
  addUninstall(program, { run: (body) => run(dependencies, body), writeOut, writeError });
  return program;
}

function addServers(program: Command, dependencies: ProgramDependencies): void {
  const servers = [
    {
      name: 'registry',
      summary: 'Serve the OCI registry API to the container runtime of this node.',
      settings: registrySettings,
    },
    {
      name: 'agent',
      summary: "Serve this node's images to other nodes.",
      settings: agentSettings,
    },
    {
      name: 'start',
      summary: 'Run both in one process, over a directory: one machine, no Kubernetes.',
      settings: startSettings,
    },
  ] as const;
  for (const { name, summary, settings } of servers) {
    addCommand(program, { name, summary, settings }).action(async (_, command: Command) => {
      using hangups = listenForHangups(dependencies.signals);
      const options = { ...loadOptions(command, dependencies), command: name, settings };
      const { config, source } = await openConfig(options);
      await run(dependencies, async (context) => {
        const runCommand = await dependencies.loaders[name]();
        await runCommand(config, { ...context, reload: { source, hangups } });
      });
    });
  }
}

function addDemo(program: Command, dependencies: ProgramDependencies): void {
  addCommand(program, {
    name: 'demo',
    summary: 'Show on this machine what happens to pulls when a registry dies.',
    settings: demoSettings,
  })
    .option('--image <reference>', 'Use a real image from its registry.')
    .option('--keep', 'Leave everything running, to cause outages by hand.', false)
    .action(async (options: DemoOptions, command: Command) => {
      const config = await load(command, dependencies);
      await run(dependencies, async (context) => {
        const runDemo = await dependencies.loaders.demo();
        const { image, keep } = options;
        await runDemo(config, { ...context, keep, ...(image === undefined ? {} : { image }) });
      });
    });
}

function addConfig(program: Command, dependencies: ProgramDependencies): void {
  addCommand(program, {
    name: 'config',
    summary: 'Check the configuration and print what is in effect, as YAML.',
  })
    .addArgument(
      new Argument('[command]', 'Check it as this command would.').choices([
        'registry',
        'agent',
        'start',
        'demo',
      ]),
    )
    .action(async (name: string | undefined, _, command: Command) => {
      const config = await load(command, dependencies, name);
      const { stringify } = await import('yaml');
      dependencies.writeOut(stringify(withoutSecrets(configSchema, config)));
    });
}

function addWhy(program: Command, dependencies: ProgramDependencies): void {
  addCommand(program, {
    name: 'why',
    summary: "Tell what this node's registry did about an image or a digest, and why.",
    settings: ['registry.admin'],
  })
    .argument('<about>', 'An image, as docker pull would name it, or a digest.')
    .option('--json', 'Print JSON.', false)
    .action(async (about: string, options: { json: boolean }, command: Command) => {
      const config = await load(command, dependencies);
      const { runWhy } = await import('./why.ts');
      dependencies.writeOut(await runWhy(config, { about, json: options.json }));
    });
}

/** The commands that change something on the node that they are run on. */
function nodeGroup(program: Command): Command {
  const summary = 'Change what Salvor has set up on this node.';
  const before = program.commands.find((command) => command.name() === 'node');
  return before ?? program.command('node').summary(summary).description(summary);
}

function addUnkeep(group: Command, dependencies: ProgramDependencies): void {
  addCommand(group, {
    name: 'unkeep',
    summary:
      'Take away the labels by which Salvor keeps layers in containerd, and nothing else. Set ' +
      'agent.keeper.mode to off first, or the next pull of an image brings them back.',
    settings: ['agent.store.containerd'],
  })
    .option('--dry-run', 'Only tell what would be removed.', false)
    .action(async (options: { dryRun: boolean }, command: Command) => {
      const config = await load(command, dependencies);
      await run(dependencies, async ({ signal }) => {
        const { runUnkeep } = await import('./unkeep.ts');
        await runUnkeep(config, { dryRun: options.dryRun, signal }, dependencies);
      });
    });
}

function addHosts(program: Command, dependencies: ProgramDependencies): void {
  const verbs = ['write', 'show', 'restore'] as const;
  const hosts = addCommand(program, {
    name: 'hosts',
    summary: "Send containerd to this node's registry through hosts.toml, show it, or undo it.",
    settings: ['node', 'registry.listen', 'registry.hostsFile', 'agent.store.containerd.socket'],
  })
    .helpCommand(false)
    .addArgument(new Argument('[verb]', 'What to do.').choices(verbs).default('write'))
    .option('--config-path <directories>', "Instead of containerd's own config_path.")
    .option(
      '--containerd-config <file>',
      "containerd's config.toml.",
      '/etc/containerd/config.toml',
    )
    .option('--containerd-version <version>', 'Instead of asking containerd.')
    .option('--mirror-url <url>', 'Where containerd is sent. Default: registry.listen.')
    .option('--dry-run', 'Show what would change, and change nothing.', false)
    .option('--wait <time>', 'How long to wait for the registry to answer.', '10s')
    .option('--no-wait', 'Do not ask the registry whether it works.')
    .option('--share <percent>', 'Instead of node.wiredPercent, which agents go by.')
    .option('--owner <uid:gid>', 'Whom the files for the registry belong to.')
    .option('--force', 'Lose what others have changed since.', false)
    .option('--json', 'Print JSON.', false)
    .action(async (verb: (typeof verbs)[number], options: HostsFlags, command: Command) => {
      const config = await load(command, dependencies);
      await run(dependencies, async ({ signal }) => {
        const { runHosts } = await import('./hosts.ts');
        const { writeOut, writeError } = dependencies;
        await runHosts(config, { ...options, verb }, { signal, writeOut, writeError });
      });
    });
  addBootstrapHosts(hosts, dependencies);
}

function addDoctor(program: Command, dependencies: ProgramDependencies): void {
  addCommand(program, {
    name: 'doctor',
    summary: 'Look for what keeps this node, or all of them, from surviving an outage.',
    settings: ['node', 'registry', 'agent', 'tls'],
  })
    .option('--json', 'Print JSON.', false)
    .option('--cluster', 'Have every node say which others it can ask.', false)
    .addOption(
      new Option('--only <check>', 'Only this check; may be given again.')
        .default([])
        .argParser((text: string, before: readonly string[]) => [...before, text]),
    )
    .option(
      '--canary <repository>',
      'Pull a tag that cannot exist from here, such as docker.io/library/salvor-canary. Default: ' +
        'from a registry that cannot exist.',
    )
    .option('--containerd-config <file>', "containerd's config.toml. Default: as it was started.")
    .option('--containerd-version <version>', 'Instead of asking containerd.')
    .option('--host-root <directory>', "Where the node's own / is.", '/')
    .option('--mirror-url <url>', 'Where containerd is sent. Default: registry.listen.')
    .action(async (options: DoctorOptions, command: Command) => {
      const { hostsSeenFrom } = await import('./doctor-place.ts');
      const readHosts = hostsSeenFrom(options.hostRoot);
      const config = await load(command, dependencies, 'doctor', { readHosts });
      await run(dependencies, async ({ signal }) => {
        const { runDoctor } = await import('./doctor.ts');
        const { writeOut } = dependencies;
        const code = await runDoctor(config, options, { signal, writeOut });
        if (code !== exitCodes.success) throw new ExitStatus(code);
      });
    });
}

type HostsFlags = Omit<HostsOptions, 'verb'>;
