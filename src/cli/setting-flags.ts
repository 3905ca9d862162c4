import { Option } from 'commander';
import type { Command } from 'commander';

import { describeSettings } from '../config/describe-settings.ts';
import type { SettingDescription } from '../config/describe-settings.ts';
import { belongsTo } from '../config/reload.ts';
import type { FlagValues } from '../config/sources.ts';

/**
 * Adds a flag for each setting whose key begins with one of `prefixes`, in groups as the schema
 * has them; all of them where `prefixes` is left out.
 */
export function addSettingFlags(command: Command, prefixes?: readonly string[]): void {
  for (const setting of describeSettings()) {
    if (prefixes === undefined || prefixes.some((prefix) => belongsTo(setting.key, prefix))) {
      command.addOption(settingOption(setting));
    }
  }
}

/** The settings among a command's parsed options, by key. */
export function settingValues(command: Command): FlagValues {
  const options = command.opts<Record<string, string | readonly string[] | undefined>>();
  const values: Record<string, string | readonly string[]> = {};
  for (const setting of describeSettings()) {
    const value = options[settingOption(setting).attributeName()];
    if (value !== undefined) {
      values[setting.key] = value;
    }
  }
  return values;
}

function settingOption(setting: SettingDescription): Option {
  const description = `${setting.description} Default: ${setting.defaultText}.`;
  const option = new Option(`${setting.flag} <${setting.placeholder}>`, description);
  option.helpGroup(`Settings of ${groupOf(setting.key)}:`);
  if (setting.repeatable) {
    option.argParser((text: string, before: readonly string[] | undefined) => [
      ...(before ?? []),
      text,
    ]);
  }
  return option;
}

function groupOf(key: string): string {
  return key.split('.').slice(0, -1).join('.');
}
