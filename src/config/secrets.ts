import { showValue } from './config-error.ts';
import type { AnySetting, MapSetting } from './setting.ts';

/** Stands where a secret was. */
const HIDDEN = '[redacted]';

/** Whether values of a setting, or of one inside of it, must not be shown. */
export function holdsSecrets(setting: AnySetting): boolean {
  switch (setting['~kind']) {
    case 'String':
      return setting.secret === true;
    case 'Array':
      return holdsSecrets(setting.items);
    case 'Record':
      return holdsSecrets(entryOf(setting));
    case 'Object':
      return Object.values(setting.properties).some(holdsSecrets);
    case 'Boolean':
    case 'Enum':
    case 'Integer':
      return false;
  }
}

/** Shows in a message what was given for a setting, but nothing that may be a secret. */
export function showGiven(setting: AnySetting, value: unknown): string {
  if (!holdsSecrets(setting)) return showValue(value);
  if (typeof value === 'string') return 'text that is not shown';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' && value !== null ? 'a map' : showValue(value);
}

/**
 * A copy of a value that can be shown: every secret text in it is replaced.
 *
 * @param setting what the value is, such as the schema of the whole configuration
 */
export function withoutSecrets(setting: AnySetting, value: unknown): unknown {
  if (!holdsSecrets(setting)) return value;
  switch (setting['~kind']) {
    case 'Array':
      return (value as readonly unknown[]).map((item) => withoutSecrets(setting.items, item));
    case 'Record': {
      const each = entryOf(setting);
      return mapped(value, (_, inner) => withoutSecrets(each, inner));
    }
    case 'Object':
      return mapped(value, (name, inner) => {
        const property = setting.properties[name];
        return property === undefined ? inner : withoutSecrets(property, inner);
      });
    case 'String':
      return value === '' ? '' : HIDDEN;
    case 'Boolean':
    case 'Enum':
    case 'Integer':
      return value;
  }
}

function entryOf(setting: MapSetting): AnySetting {
  const { '^.*$': entry } = setting.patternProperties;
  return entry;
}

function mapped(value: unknown, change: (name: string, inner: unknown) => unknown): unknown {
  const entries = Object.entries(value as Record<string, unknown>);
  return Object.fromEntries(entries.map(([name, inner]) => [name, change(name, inner)]));
}
