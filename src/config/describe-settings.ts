import { configSchema } from './schema.ts';
import { mapValue } from './parse-value.ts';
import { formatQuantity } from './quantity.ts';
import type { AnySetting, ComputedDefault, SectionSetting } from './setting.ts';
import type { NamedSetting } from './setting-name.ts';
import { namedSettings } from './setting-name.ts';
import { textFormats } from './text-format.ts';

/** A setting in words, for help, flags and documentation. */
export interface SettingDescription {
  readonly key: string;
  readonly env: string;
  readonly flag: string;
  /** One word that stands for the value in help: "address", "time", "size", "list", … */
  readonly placeholder: string;
  /** What values it takes, a range or a kind of text. */
  readonly takes: string;
  /** The default in words; "empty" for an empty text, list or map. */
  readonly defaultText: string;
  readonly description: string;
  /** Whether a flag may be given several times, each adding to the list. */
  readonly repeatable: boolean;
  /** Whether a running process takes a changed value over. */
  readonly reloadable: boolean;
  /** What an entry of a list or map of maps holds. */
  readonly entries: readonly EntryDescription[];
}

/** One key of an entry of a list or map. */
export type EntryDescription = Pick<
  SettingDescription,
  'key' | 'takes' | 'defaultText' | 'description'
>;

const computedDefaultTexts: Readonly<Record<ComputedDefault, string>> = {
  hostName: "the machine's host name",
  dataHome: '$XDG_DATA_HOME/salvor or ~/.local/share/salvor',
  agentStore: '<node.stateDirectory>/store',
  hostsFile: '<node.stateDirectory>/upstreams/hosts.json',
};

/** Every setting in words, in the order of the schema. */
export function describeSettings(): readonly SettingDescription[] {
  return namedSettings.map(describeSetting);
}

/** The sections at the top of the schema with what they are about. */
export function describeSections(): readonly {
  readonly key: string;
  readonly description: string;
}[] {
  return Object.entries(configSchema.properties).map(([key, { description }]) => ({
    key,
    description,
  }));
}

function describeSetting({ key, env, flag, setting }: NamedSetting): SettingDescription {
  return {
    key,
    env,
    flag,
    placeholder: placeholder(setting),
    takes: takes(setting),
    defaultText: defaultText(setting),
    description: setting.description,
    repeatable: setting['~kind'] === 'Array' && setting.items['~kind'] === 'String',
    reloadable: setting.reloadable === true,
    entries: entries(setting),
  };
}

function entries(setting: AnySetting): readonly EntryDescription[] {
  const entry =
    setting['~kind'] === 'Array'
      ? setting.items
      : setting['~kind'] === 'Record'
        ? mapValue(setting)
        : undefined;
  return entry?.['~kind'] === 'Object' ? describeEntries(entry) : [];
}

function describeEntries(section: SectionSetting): EntryDescription[] {
  return Object.entries(section.properties).flatMap(([key, setting]) => [
    {
      key,
      takes: takes(setting),
      defaultText:
        setting['~kind'] === 'String' && setting.minLength === 1
          ? 'must be given'
          : defaultText(setting),
      description: setting.description,
    },
    ...entries(setting).map((entry) => ({ ...entry, key: `${key}[].${entry.key}` })),
  ]);
}

function placeholder(setting: AnySetting): string {
  switch (setting['~kind']) {
    case 'Integer':
      return { milliseconds: 'time', bytes: 'size', 'bytes per second': 'rate', items: 'number' }[
        setting.unit
      ];
    case 'String':
      return { absolutePath: 'path', address: 'address', registryHost: 'host', other: 'text' }[
        setting.format === 'absolutePath' ||
        setting.format === 'address' ||
        setting.format === 'registryHost'
          ? setting.format
          : 'other'
      ];
    case 'Boolean':
      return 'boolean';
    case 'Enum':
      return 'word';
    case 'Array':
      return setting.items['~kind'] === 'String' ? 'list' : 'json';
    case 'Record':
    case 'Object':
      return 'json';
  }
}

function takes(setting: AnySetting): string {
  switch (setting['~kind']) {
    case 'Integer':
      return [setting.minimum, setting.maximum]
        .map((bound) => formatQuantity(bound, setting.unit))
        .join(' to ');
    case 'String':
      return setting.format === undefined ? 'text' : textFormats[setting.format].expected;
    case 'Boolean':
      return 'true or false';
    case 'Enum':
      return `one of ${setting.enum.join(', ')}`;
    case 'Array':
      return setting.items['~kind'] === 'String' ? 'a list of texts' : 'a list of maps';
    case 'Record':
      return mapValue(setting)['~kind'] === 'String' ? 'a map of texts' : 'a map of maps';
    case 'Object':
      return 'a map of maps';
  }
}

function defaultText(setting: AnySetting): string {
  switch (setting['~kind']) {
    case 'Integer':
      return formatQuantity(setting.default, setting.unit);
    case 'String':
      return setting.computedDefault === undefined
        ? setting.default || 'empty'
        : computedDefaultTexts[setting.computedDefault];
    case 'Boolean':
    case 'Enum':
      return String(setting.default);
    case 'Array':
      return setting.default.join(', ') || 'empty';
    case 'Record':
    case 'Object':
      return 'empty';
  }
}
