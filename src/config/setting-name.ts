import { configSchema } from './schema.ts';
import type { AnySetting, SectionSetting } from './setting.ts';

/** Every setting that can be given as a whole: all but the sections. */
export type LeafSetting = Exclude<AnySetting, SectionSetting>;

/** A setting with the names under which each source knows it. */
export interface NamedSetting {
  /** Path in a file, such as registry.budgets.connectMs. */
  readonly key: string;
  /** SALVOR_REGISTRY_BUDGETS_CONNECT_MS */
  readonly env: string;
  /** --registry-budgets-connect-ms */
  readonly flag: string;
  readonly setting: LeafSetting;
}

function words(key: string): string[] {
  return key
    .split('.')
    .flatMap((part) => part.split(/(?=[A-Z])/).map((word) => word.toLowerCase()));
}

/** The environment variable of a setting: SALVOR_ and the words of its key. */
export function environmentName(key: string): string {
  return `SALVOR_${words(key).join('_').toUpperCase()}`;
}

/** The flag of a setting: -- and the words of its key. */
export function flagName(key: string): string {
  return `--${words(key).join('-')}`;
}

function* leaves(section: SectionSetting, prefix: string): Generator<NamedSetting> {
  for (const [name, setting] of Object.entries(section.properties)) {
    const key = `${prefix}${name}`;
    if (setting['~kind'] === 'Object') {
      yield* leaves(setting, `${key}.`);
    } else {
      yield { key, env: environmentName(key), flag: flagName(key), setting };
    }
  }
}

/** Every setting with its names, in the order of the schema. */
export const namedSettings: readonly NamedSetting[] = [...leaves(configSchema, '')];
