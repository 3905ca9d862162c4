import { readConfigFile, type FileContent } from '../config/config-file.ts';
import { readHostsFile } from '../config/hosts-file.ts';
import { configFileOf, loadConfig, type LoadOptions } from '../config/load.ts';
import type { Config } from '../config/schema.ts';

/** What the files of a configuration hold; undefined where there is none. */
export interface ConfigContents {
  readonly file?: FileContent | undefined;
  /** Of registry.hostsFile. */
  readonly hosts?: FileContent | undefined;
}

/** Where a running command's configuration came from, to be loaded again. */
export interface ConfigSource {
  readonly command: string;
  /** Keys, or the beginnings of keys, that matter to the command. */
  readonly settings: readonly string[];
  /** Files to look at: config file and registry.hostsFile, where the command has them. */
  readonly paths: readonly string[];
  /** What they held when the command began. */
  readonly contents: ConfigContents;
  /** Reads the files again. Never throws. */
  read(): Promise<ConfigContents>;
  /**
   * Loads again, with files of these contents below the same environment and flags.
   *
   * @throws ConfigError as loadConfig
   */
  load(contents: ConfigContents): Promise<Config>;
}

/**
 * Loads a command's configuration, and remembers how.
 *
 * @throws ConfigError as loadConfig
 */
export async function openConfig(
  options: LoadOptions & Pick<ConfigSource, 'command' | 'settings'>,
): Promise<{ readonly config: Config; readonly source: ConfigSource }> {
  const { command, settings, ...rest } = options;
  const path = configFileOf(options);
  const file = path === undefined ? undefined : await readConfigFile(path);
  let hostsPath: string | undefined;
  let hosts: FileContent | undefined;
  const config = await loadConfig({
    ...rest,
    command,
    ...(file === undefined ? {} : { content: file }),
    readHosts: async (where) => {
      hostsPath = where;
      hosts = await readHostsFile(where);
      return hosts;
    },
  });
  const source: ConfigSource = {
    command,
    settings,
    paths: [path, hostsPath].filter((each) => each !== undefined),
    contents: { file, hosts },
    read: async () => ({
      file: path === undefined ? undefined : await readConfigFile(path),
      hosts: hostsPath === undefined ? undefined : await readHostsFile(hostsPath),
    }),
    load: (contents) =>
      loadConfig({
        ...rest,
        command,
        ...(contents.file === undefined ? {} : { content: contents.file }),
        // It stays the file that the process began with, whatever the configuration now says.
        readHosts: async () => contents.hosts,
      }),
  };
  return { config, source };
}
