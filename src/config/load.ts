import { homedir, hostname } from 'node:os';
import { join } from 'node:path';

import type { FileContent } from './config-file.ts';
import { parseConfigFile, readConfigFile } from './config-file.ts';
import type { ConfigMistake } from './config-error.ts';
import { ConfigError } from './config-error.ts';
import { parseHosts, readHostsFile, type HostsSettings } from './hosts-file.ts';
import { checkRules } from './rules.ts';
import type { Config } from './schema.ts';
import { defaultOf } from './parse-value.ts';
import { configSchema } from './schema.ts';
import type { ComputedDefault } from './setting.ts';
import { namedSettings } from './setting-name.ts';
import { assign, deepFreeze } from './setting-path.ts';
import type { Environment, FlagValues, SettingValues } from './sources.ts';
import { settingsFromEnvironment, settingsFromFile, settingsFromFlags } from './sources.ts';

export interface LoadOptions {
  /** The command that is about to run, for rules that concern only some of them. */
  readonly command?: string;
  /** Path of a JSON or YAML file; SALVOR_CONFIG of the environment where left out. */
  readonly file?: string;
  /** What the file holds, where it was read already. */
  readonly content?: FileContent;
  /** How registry.hostsFile is read; undefined stands for no such file. */
  readonly readHosts?: (path: string) => Promise<FileContent | undefined>;
  readonly env?: Environment;
  /** By key of the setting, such as "registry.listen". */
  readonly flags?: FlagValues;
}

/**
 * Loads the configuration: defaults, below a file, below the environment, below flags.
 *
 * @throws {ConfigError} with every mistake of every source, those that a stronger source
 *   overrides included
 */
export async function loadConfig(options: LoadOptions = {}): Promise<Config> {
  const environment = options.env ?? {};
  const mistakes: ConfigMistake[] = [];
  const layers = [
    await readFileLayer({ path: configFileOf(options), content: options.content }, mistakes),
    settingsFromEnvironment(environment, mistakes),
    settingsFromFlags(options.flags ?? {}, mistakes),
  ];
  const given: SettingValues = new Map(layers.flatMap((layer) => [...layer]));
  const config = build(given, environment);
  if (asksUpstreams(options.command)) {
    const path = config.registry.hostsFile;
    const content = await (options.readHosts ?? readHostsFile)(path);
    if (content !== undefined) takeHosts(config, await parseHosts(path, content, mistakes));
  }
  completeUpstreams(config);
  const sourceOf = (key: string): string => given.get(key)?.source ?? 'default';
  mistakes.push(...checkRules({ config, command: options.command, sourceOf }, mistakes));
  if (mistakes.length > 0) {
    throw new ConfigError(mistakes);
  }
  return deepFreeze(config);
}

/** The path of the file that is loaded; undefined when there is none. */
export function configFileOf(options: Pick<LoadOptions, 'file' | 'env'>): string | undefined {
  return (options.file ?? options.env?.['SALVOR_CONFIG']) || undefined;
}

async function readFileLayer(
  { path, content }: { path: string | undefined; content: FileContent | undefined },
  mistakes: ConfigMistake[],
): Promise<SettingValues> {
  if (path === undefined) {
    return new Map();
  }
  try {
    const parsed = await parseConfigFile(path, content ?? (await readConfigFile(path)));
    return settingsFromFile(parsed, path, mistakes);
  } catch (error) {
    if (!(error instanceof ConfigError)) {
      throw error;
    }
    mistakes.push(...error.mistakes);
    return new Map();
  }
}

type Changeable<T> = T extends readonly (infer Item)[]
  ? Changeable<Item>[]
  : T extends object
    ? { -readonly [Key in keyof T]: Changeable<T[Key]> }
    : T;

function build(given: SettingValues, environment: Environment): Changeable<Config> {
  const config = defaultOf(configSchema) as Changeable<Config>;
  for (const { key } of namedSettings) {
    // A value that was wrong is undefined: the default stands in while other rules are checked.
    const value = given.get(key)?.value;
    if (value !== undefined) {
      assign(config, key, value);
    }
  }
  for (const { key, setting } of namedSettings) {
    if (setting['~kind'] === 'String' && setting.computedDefault !== undefined) {
      const chosen = given.get(key)?.value;
      if (chosen === undefined || chosen === '') {
        assign(config, key, computedDefaults[setting.computedDefault](config, environment));
      }
    }
  }
  return config;
}

/** Whether a command, or somebody who looks at the configuration, needs to know the upstreams. */
function asksUpstreams(command: string | undefined): boolean {
  return command === undefined || ['registry', 'start', 'config', 'doctor'].includes(command);
}

/** What a person has configured is stronger, upstream by upstream. */
function takeHosts(config: Changeable<Config>, hosts: HostsSettings): void {
  const { registry } = config;
  registry.upstreams = { ...(hosts.upstreams as typeof registry.upstreams), ...registry.upstreams };
  const mirrors = hosts.mirrors as typeof registry.mirrors;
  if (registry.mirrors.length === 0) registry.mirrors = mirrors;
}

function completeUpstreams(config: Changeable<Config>): void {
  for (const [host, upstream] of Object.entries(config.registry.upstreams)) {
    // What was wrong is undefined here.
    const endpoints = upstream.endpoints as readonly unknown[] | undefined;
    if (upstream.url === '' && endpoints?.length === 0) {
      upstream.url = defaultUpstreamUrl(host, upstream.plainHttp);
    }
  }
}

const computedDefaults: Readonly<
  Record<ComputedDefault, (config: Config, environment: Environment) => string>
> = {
  hostName: () => hostname(),
  dataHome: (_, environment) => {
    const chosen = environment['XDG_DATA_HOME'];
    const home = environment['HOME'] ?? homedir();
    // The XDG specification has relative paths ignored.
    return join(chosen?.startsWith('/') ? chosen : join(home, '.local', 'share'), 'salvor');
  },
  agentStore: (config) => join(config.node.stateDirectory, 'store'),
  hostsFile: (config) => join(config.node.stateDirectory, 'upstreams', 'hosts.json'),
};

/**
 * Where the API of an upstream answers that has no url: at its own name, except that docker.io's
 * is elsewhere by convention.
 *
 * @param host as image names write it, with a port where it has one
 */
export function defaultUpstreamUrl(host: string, plainHttp = false): string {
  if (host === 'docker.io') {
    return 'https://registry-1.docker.io';
  }
  return `${plainHttp ? 'http' : 'https'}://${host}`;
}
