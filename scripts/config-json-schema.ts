import { mapValue } from '../src/config/parse-value.ts';
import { configSchema } from '../src/config/schema.ts';
import type { AnySetting, IntegerSetting, TextSetting, Unit } from '../src/config/setting.ts';
import { namedSettings } from '../src/config/setting-name.ts';
import type { TextFormat } from '../src/config/text-format.ts';

/** A JSON Schema, draft 7, which is what Helm reads. */
export type JsonSchema = { readonly [key: string]: unknown };

// What the loader checks by program is a pattern here: coarser in places, so that nothing that the
// loader accepts is refused, and precise enough that a slip is noticed before it reaches a node.
const host = String.raw`([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])`;
const port = String.raw`:[0-9]{1,5}`;
const patterns: Readonly<Partial<Record<TextFormat, string>>> = {
  absolutePath: '^(/.*)?$',
  address: `^(${host}${port})?$`,
  apiUrl: String.raw`^(https?://[^\s\\?#@]+)?$`,
  cidr: '^([0-9A-Fa-f:.]+/[0-9]{1,3})?$',
  dnsName: '^([A-Za-z0-9_.-]+)?$',
  headerName: "^[\\w!#$%&'*+.^`|~-]*$",
  hostPattern: `^((\\*|(\\*\\.)?${host})(${port})?)?$`,
  kubernetesName: '^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$',
  namePattern: String.raw`^([\w.*:\[\]-]+(/[\w.*-]+)*)?$`,
  registryHost: `^(${host}(${port})?)?$`,
  staleCause: '^(unreachable|5xx|429|gone)?$',
};

const quantities: Readonly<Record<Unit, string>> = {
  milliseconds: String.raw`^\s*([0-9]+|([0-9]+(\.[0-9]+)? ?([mM][sS]|[sS]|[mM]|[mM][iI][nN]|[hH]|[dD]))+)\s*$`,
  bytes: String.raw`^\s*[0-9]+(\.[0-9]+)?( ?[kKmMgGtT]?[iI]?[bB])?\s*$`,
  'bytes per second': String.raw`^\s*[0-9]+(\.[0-9]+)?( ?[kKmMgGtT]?[iI]?[bB](/[sS])?)?\s*$`,
  items: String.raw`^\s*[0-9]+\s*$`,
};

/** What a configuration file may hold, for programs that check it without Salvor. */
export function configJsonSchema(): JsonSchema {
  return settingSchema(configSchema);
}

/** Keys of the settings that a running process takes over, in the order of the schema. */
export function reloadableKeys(): string[] {
  return namedSettings.filter(({ setting }) => setting.reloadable === true).map(({ key }) => key);
}

function settingSchema(setting: AnySetting): JsonSchema {
  const { description } = setting;
  switch (setting['~kind']) {
    case 'Integer':
      return { description, ...integerSchema(setting) };
    case 'String':
      return { description, ...textSchema(setting) };
    case 'Boolean':
      return { description, enum: [true, false, 'true', 'false'], default: setting.default };
    case 'Enum':
      return { description, enum: setting.enum, default: setting.default };
    case 'Array':
      return {
        description,
        type: 'array',
        items: notEmpty(settingSchema(setting.items)),
        maxItems: setting.maxItems,
        default: setting.default,
      };
    case 'Record':
      return {
        description,
        type: 'object',
        // Not propertyNames: Helm's validator names a wrong place for those that do not match.
        patternProperties: {
          [patterns[setting.keyFormat] ?? '^.+$']: notEmpty(settingSchema(mapValue(setting))),
        },
        additionalProperties: false,
        maxProperties: setting.maxProperties,
      };
    case 'Object': {
      const entries = Object.entries(setting.properties);
      const required = entries.filter(([, value]) => isRequired(value)).map(([key]) => key);
      return {
        description,
        type: 'object',
        properties: Object.fromEntries(entries.map(([key, value]) => [key, settingSchema(value)])),
        additionalProperties: false,
        ...(required.length === 0 ? {} : { required }),
      };
    }
  }
}

/** Within lists and maps only: elsewhere such a text has a default. */
function isRequired(setting: AnySetting): boolean {
  return setting['~kind'] === 'String' && setting.minLength === 1 && setting.default === '';
}

function integerSchema({ default: value, maximum, minimum, unit }: IntegerSetting): JsonSchema {
  // Bounds are for numbers, the pattern for texts such as "400ms".
  const type = ['integer', 'string'];
  return { type, minimum, maximum, pattern: quantities[unit], default: value };
}

function textSchema(setting: TextSetting): JsonSchema {
  const { default: value, format, maxLength, minLength } = setting;
  return {
    type: 'string',
    maxLength,
    ...(minLength === undefined ? {} : { minLength }),
    ...patternOf(format),
    ...(minLength === undefined || value !== '' ? { default: value } : {}),
  };
}

function patternOf(format: TextFormat | undefined): JsonSchema {
  const pattern = format === undefined ? undefined : patterns[format];
  return pattern === undefined ? {} : { pattern };
}

function notEmpty(schema: JsonSchema): JsonSchema {
  return schema['type'] === 'string' ? { ...schema, minLength: 1 } : schema;
}
