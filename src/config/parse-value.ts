import { closestWord } from './closest-word.ts';
import type { ConfigMistake } from './config-error.ts';
import { showValue } from './config-error.ts';
import { holdsSecrets, showGiven } from './secrets.ts';
import { formatQuantity, parseQuantity, quantityExamples } from './quantity.ts';
import type {
  AnySetting,
  ChoiceSetting,
  FlagSetting,
  IntegerSetting,
  ListSetting,
  MapSetting,
  SectionSetting,
  TextSetting,
} from './setting.ts';
import { textFormats } from './text-format.ts';

/** Where a value comes from and where mistakes about it go. */
export interface ParseContext {
  readonly source: string;
  readonly mistakes: ConfigMistake[];
}

/**
 * Turns a value as a file, an environment variable or a flag gives it into one that the schema
 * allows. Mistakes are added to `context.mistakes`, each with the key it concerns.
 *
 * @returns undefined when there was a mistake
 */
export function parseValue(
  setting: AnySetting,
  given: { readonly key: string; readonly value: unknown },
  context: ParseContext,
): unknown {
  switch (setting['~kind']) {
    case 'Integer':
      return parseInteger(setting, given, context);
    case 'String':
      return parseText(setting, given, context);
    case 'Boolean':
      return parseFlag(setting, given, context);
    case 'Enum':
      return parseChoice(setting, given, context);
    case 'Array':
      return parseList(setting, given, context);
    case 'Record':
      return parseMap(setting, given, context);
    case 'Object':
      return parseSection(setting, given, context);
  }
}

/** How much is shown of a name that may hold a secret, in characters. */
const NAME_START = 5;

interface Given {
  readonly key: string;
  readonly value: unknown;
}

function refuse(
  setting: AnySetting,
  given: Given,
  { expected, ...context }: ParseContext & { readonly expected: string },
): unknown {
  context.mistakes.push({
    key: given.key,
    source: context.source,
    found: showGiven(setting, given.value),
    expected,
  });
  return undefined;
}

function parseInteger(setting: IntegerSetting, given: Given, context: ParseContext) {
  const { value } = given;
  const number =
    typeof value === 'number'
      ? value
      : typeof value === 'string'
        ? parseQuantity(value, setting.unit)
        : undefined;
  if (
    number === undefined ||
    !Number.isSafeInteger(number) ||
    number < setting.minimum ||
    number > setting.maximum
  ) {
    return refuse(setting, given, { ...context, expected: expectedInteger(setting) });
  }
  return number;
}

/** What an integer setting takes, for messages: "milliseconds from 1 ms to 1 d, such as …". */
function expectedInteger(setting: IntegerSetting): string {
  const { minimum, maximum, unit } = setting;
  const range = `from ${formatQuantity(minimum, unit)} to ${formatQuantity(maximum, unit)}`;
  return unit === 'items'
    ? `a whole number ${range}`
    : `${unit} ${range}, such as ${quantityExamples[unit]}`;
}

function parseText(setting: TextSetting, given: Given, context: ParseContext) {
  const { value } = given;
  if (typeof value !== 'string') {
    return refuse(setting, given, { ...context, expected: 'text' });
  }
  if (value.length < (setting.minLength ?? 0)) {
    return refuse(setting, given, { ...context, expected: 'a value' });
  }
  if (value.length > setting.maxLength) {
    return refuse(setting, given, {
      ...context,
      expected: `at most ${setting.maxLength} characters`,
    });
  }
  const format = setting.format === undefined ? undefined : textFormats[setting.format];
  if (format !== undefined && value !== '' && !format.matches(value)) {
    return refuse(setting, given, { ...context, expected: format.expected });
  }
  return setting.format === 'address' ? withoutNeedlessBrackets(value) : value;
}

/** [10.0.0.1]:7490 is what a template writes that does not know which kind an address is. */
function withoutNeedlessBrackets(address: string): string {
  return address.replace(/^\[([\d.]+)\]:/, '$1:');
}

function parseFlag(setting: FlagSetting, given: Given, context: ParseContext) {
  switch (given.value) {
    case true:
    case 'true':
      return true;
    case false:
    case 'false':
      return false;
    default:
      return refuse(setting, given, { ...context, expected: 'true or false' });
  }
}

function parseChoice(setting: ChoiceSetting, given: Given, context: ParseContext) {
  const { value } = given;
  if (typeof value !== 'string' || !setting.enum.includes(value)) {
    return refuse(setting, given, { ...context, expected: `one of ${setting.enum.join(', ')}` });
  }
  return value;
}

function parseList(setting: ListSetting, given: Given, context: ParseContext) {
  const { value } = given;
  if (!Array.isArray(value)) {
    return refuse(setting, given, { ...context, expected: 'a list' });
  }
  if (value.length > setting.maxItems) {
    return refuse(setting, given, { ...context, expected: `at most ${setting.maxItems} items` });
  }
  return value.map((item: unknown, index) => {
    const itemGiven = { key: `${given.key}[${index}]`, value: item };
    return item === ''
      ? refuse(setting.items, itemGiven, { ...context, expected: 'no empty item' })
      : parseValue(setting.items, itemGiven, context);
  });
}

function parseMap(setting: MapSetting, given: Given, context: ParseContext) {
  const { value } = given;
  if (!isPlainObject(value)) {
    return refuse(setting, given, { ...context, expected: 'a map' });
  }
  const entries = Object.entries(value);
  if (entries.length > setting.maxProperties) {
    return refuse(setting, given, {
      ...context,
      expected: `at most ${setting.maxProperties} entries`,
    });
  }
  const keyRule = textFormats[setting.keyFormat];
  const values = mapValue(setting);
  const isSecretText = values['~kind'] === 'String' && holdsSecrets(values);
  const parsed = entries.map(([name, entry]): [string, unknown] => {
    const isKnown = keyRule.matches(name);
    // A whole line that was meant for name and value is no less secret.
    const shown = isKnown || !isSecretText ? name : `${name.slice(0, NAME_START)}…`;
    const key = `${given.key}["${shown}"]`;
    if (!isKnown) {
      const { expected } = keyRule;
      context.mistakes.push({ key, source: context.source, found: showValue(shown), expected });
    }
    return [name, parseValue(values, { key, value: entry }, context)];
  });
  // An entry that was wrong has no value; the others are still checked.
  return Object.fromEntries(parsed.filter(([, value]) => value !== undefined)) as unknown;
}

function parseSection(setting: SectionSetting, given: Given, context: ParseContext) {
  const value = given.value ?? {};
  if (!isPlainObject(value)) {
    return refuse(setting, given, { ...context, expected: 'a map' });
  }
  reportUnknownKeys(setting, { key: given.key, value }, context);
  const parsed = Object.entries(setting.properties).map(([name, property]) => {
    const entry = Object.hasOwn(value, name) ? value[name] : undefined;
    const key = `${given.key}.${name}`;
    return [
      name,
      entry === undefined || entry === null
        ? valueOfMissing(property, key, context)
        : parseValue(property, { key, value: entry }, context),
    ];
  });
  return Object.fromEntries(parsed) as unknown;
}

function valueOfMissing(property: AnySetting, key: string, context: ParseContext): unknown {
  if (property['~kind'] === 'String' && (property.minLength ?? 0) > 0) {
    context.mistakes.push({ key, source: context.source, expected: 'a value' });
    return undefined;
  }
  return defaultOf(property);
}

/** The value of a setting that nobody gave. */
export function defaultOf(setting: AnySetting): unknown {
  if (setting['~kind'] !== 'Object') {
    return structuredClone(setting.default);
  }
  const entries = Object.entries(setting.properties);
  return Object.fromEntries(entries.map(([name, property]) => [name, defaultOf(property)]));
}

/** Adds a mistake for each key that a section does not have, with the key that was meant. */
export function reportUnknownKeys(
  setting: SectionSetting,
  given: { readonly key: string; readonly value: Readonly<Record<string, unknown>> },
  context: ParseContext,
): void {
  const known = Object.keys(setting.properties);
  const prefix = given.key === '' ? '' : `${given.key}.`;
  for (const name of Object.keys(given.value)) {
    if (!Object.hasOwn(setting.properties, name)) {
      const meant = closestWord(name, known);
      const hint =
        meant === undefined ? `: one of ${known.join(', ')}` : `; did you mean ${prefix}${meant}?`;
      context.mistakes.push({
        key: `${prefix}${name}`,
        source: context.source,
        expected: `a known key${hint}`,
      });
    }
  }
}

/** What each entry of a map is. */
export function mapValue(setting: MapSetting): AnySetting {
  const { '^.*$': value } = setting.patternProperties;
  return value;
}

/** Whether a value is a map of keys, as files and JSON have them. */
export function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
