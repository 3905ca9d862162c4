import { isDeepStrictEqual } from 'node:util';
import type { ConfigMistake } from './config-error.ts';
import { ConfigError } from './config-error.ts';
import { checkRules } from './rules.ts';
import type { Config } from './schema.ts';
import { namedSettings } from './setting-name.ts';
import { assign, deepFreeze, valueAt } from './setting-path.ts';

/** What becomes of a running process's configuration when another one was loaded. */
export interface ReloadPlan {
  /** The running configuration with the new values of all reloadable settings. */
  readonly config: Config;
  /** Keys of reloadable settings that differ from the running configuration. */
  readonly changed: readonly string[];
  /** Keys of the others that differ: their new values count after a restart. */
  readonly needRestart: readonly string[];
}

/**
 * Compares a newly loaded configuration with the running one.
 *
 * @param options.settings keys, or the beginnings of keys, that matter to the running command
 * @throws {ConfigError} when the new values do not go together with those that need a restart
 */
export function planReload(
  configs: { readonly running: Config; readonly loaded: Config },
  options: { readonly command: string; readonly settings: readonly string[] },
): ReloadPlan {
  const { running, loaded } = configs;
  const differing = namedSettings.filter(
    ({ key }) =>
      options.settings.some((prefix) => belongsTo(key, prefix)) &&
      !isDeepStrictEqual(valueAt(running, key), valueAt(loaded, key)),
  );
  const changed = differing.filter(({ setting }) => setting.reloadable === true);
  const config = structuredClone(running);
  for (const { key } of changed) assign(config, key, valueAt(loaded, key));
  const broken = (checked: Config): readonly ConfigMistake[] => {
    const sourceOf = (): string => 'beside settings that only a restart changes';
    return checkRules({ config: checked, command: options.command, sourceOf }, []);
  };
  // The process runs with what it has, whatever a rule says about it.
  const known = broken(running);
  const mistakes = broken(config).filter(
    (mistake) => !known.some((each) => isDeepStrictEqual(each, mistake)),
  );
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return {
    config: deepFreeze(config),
    changed: changed.map(({ key }) => key),
    needRestart: differing.filter((each) => !changed.includes(each)).map(({ key }) => key),
  };
}

/** Whether a key is the given one or below it. */
export function belongsTo(key: string, prefix: string): boolean {
  return key === prefix || key.startsWith(`${prefix}.`);
}
