import { readConfigFile, type FileContent } from '../config/config-file.ts';
import { configFileOf, loadConfig, type LoadOptions } from '../config/load.ts';
import type { Config } from '../config/schema.ts';

/** Where a running command's configuration came from, to be loaded again. */
export interface ConfigSource {
  readonly command: string;
  /** Keys, or the beginnings of keys, that matter to the command. */
  readonly settings: readonly string[];
  /** The file, and what it held when the command began; undefined when there is none. */
  readonly file: { readonly path: string; readonly content: FileContent } | undefined;
  /**
   * Loads again, with a file of this content below the same environment and flags.
   *
   * @throws ConfigError as loadConfig
   */
  load(content: FileContent): Promise<Config>;
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
  const load = async (content?: FileContent): Promise<Config> =>
    loadConfig({ ...rest, command, ...(content === undefined ? {} : { content }) });
  const path = configFileOf(options);
  const file = path === undefined ? undefined : { path, content: await readConfigFile(path) };
  return { config: await load(file?.content), source: { command, settings, file, load } };
}
