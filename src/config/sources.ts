import { resolve } from 'node:path';

import { closestWord } from './closest-word.ts';
import type { ConfigMistake } from './config-error.ts';
import { isPlainObject, parseValue, reportUnknownKeys } from './parse-value.ts';
import { configSchema } from './schema.ts';
import { showGiven } from './secrets.ts';
import type { SectionSetting } from './setting.ts';
import type { LeafSetting } from './setting-name.ts';
import { namedSettings } from './setting-name.ts';

/** What one source gives: value and origin by key of the setting. */
export type SettingValues = Map<string, { readonly value: unknown; readonly source: string }>;

export type Environment = Readonly<Record<string, string | undefined>>;

/** A flag's value as the command line has it: text, or several texts where it was repeated. */
export type FlagValues = Readonly<Record<string, string | readonly string[] | boolean>>;

// Kubernetes sets variables for every Service (SALVOR_SERVICE_HOST, SALVOR_AGENT_PORT_7490_TCP);
// a Service with our name must not be taken for a mistake.
const serviceLink =
  /^SALVOR(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$/;
const foreignVariable = /^SALVOR_(CONFIG$|TEST_|BENCH_|DEMO_)/;

/** Reads what a configuration file holds, already parsed to maps, lists and values. */
export function settingsFromFile(
  content: unknown,
  path: string,
  mistakes: ConfigMistake[],
): SettingValues {
  const source = `file ${path}`;
  const values: SettingValues = new Map();
  const walk = (section: SectionSetting, given: unknown, key: string): void => {
    if (given === undefined || given === null) {
      return;
    }
    if (!isPlainObject(given)) {
      mistakes.push({
        key: key === '' ? 'the whole file' : key,
        source,
        found: showGiven(section, given),
        expected: 'a map',
      });
      return;
    }
    reportUnknownKeys(section, { key, value: given }, { source, mistakes });
    for (const [name, setting] of Object.entries(section.properties)) {
      const value = Object.hasOwn(given, name) ? given[name] : undefined;
      const path = key === '' ? name : `${key}.${name}`;
      if (setting['~kind'] === 'Object') {
        walk(setting, value, path);
      } else if (value !== undefined && value !== null) {
        const parsed = parseValue(setting, { key: path, value }, { source, mistakes });
        values.set(path, { value: parsed, source });
      }
    }
  };
  walk(configSchema, content, '');
  return values;
}

/** Reads every SALVOR_… variable; one that names no setting is a mistake. */
export function settingsFromEnvironment(
  environment: Environment,
  mistakes: ConfigMistake[],
): SettingValues {
  const values: SettingValues = new Map();
  const byName = new Map(namedSettings.map((named) => [named.env, named]));
  for (const [name, text] of Object.entries(environment)) {
    if (!name.startsWith('SALVOR_') || text === undefined) {
      continue;
    }
    const source = `environment ${name}`;
    const named = byName.get(name);
    if (named !== undefined) {
      const value = parseWritten(named, [text], { source, mistakes });
      values.set(named.key, { value, source });
    } else if (!serviceLink.test(name) && !foreignVariable.test(name)) {
      const meant = closestWord(name, byName.keys());
      const hint = meant === undefined ? '' : `; did you mean ${meant}?`;
      mistakes.push({ key: name, source: 'environment', expected: `a known variable${hint}` });
    }
  }
  return values;
}

/** Reads flags, by key of their setting. */
export function settingsFromFlags(flags: FlagValues, mistakes: ConfigMistake[]): SettingValues {
  const values: SettingValues = new Map();
  const byKey = new Map(namedSettings.map((named) => [named.key, named]));
  for (const [key, given] of Object.entries(flags)) {
    const named = byKey.get(key);
    if (named === undefined) {
      mistakes.push({ key, source: 'flag', expected: 'a known setting' });
      continue;
    }
    const texts = (typeof given === 'object' ? given : [String(given)]).map((text) =>
      // Where a command was typed is known, so a path may be relative there.
      isPath(named.setting) && text !== '' ? resolve(text) : text,
    );
    const source = `flag ${named.flag}`;
    values.set(key, { value: parseWritten(named, texts, { source, mistakes }), source });
  }
  return values;
}

function isPath(setting: LeafSetting): boolean {
  return setting['~kind'] === 'String' && setting.format === 'absolutePath';
}

/** Lists are separated by commas; lists of maps and maps are written as JSON. */
function parseWritten(
  named: { readonly key: string; readonly setting: LeafSetting },
  texts: readonly string[],
  context: { readonly source: string; readonly mistakes: ConfigMistake[] },
): unknown {
  const { key, setting } = named;
  const last = texts.at(-1) ?? '';
  if (setting['~kind'] === 'Array' && setting.items['~kind'] === 'String') {
    const items = texts.flatMap((text) => text.split(',')).map((item) => item.trim());
    return parseValue(setting, { key, value: items.filter((item) => item !== '') }, context);
  }
  if (setting['~kind'] !== 'Array' && setting['~kind'] !== 'Record') {
    return parseValue(setting, { key, value: last }, context);
  }
  try {
    return parseValue(setting, { key, value: JSON.parse(last) as unknown }, context);
  } catch {
    context.mistakes.push({
      key,
      source: context.source,
      found: showGiven(setting, last),
      expected: setting['~kind'] === 'Array' ? 'a JSON list' : 'a JSON object',
    });
    return undefined;
  }
}
