import { readFile } from 'node:fs/promises';

import { format } from 'prettier';
import { IsArray, IsBoolean, IsEnum, IsInteger, IsObject, IsRecord, IsString } from 'typebox';
import { Value } from 'typebox/value';
import { expect, test } from 'vitest';

import { renderConfigurationPage } from '../../../scripts/configuration-page.ts';
import { describeSettings } from '../../../src/config/describe-settings.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { AnySetting } from '../../../src/config/setting.ts';
import { environmentName, flagName, namedSettings } from '../../../src/config/setting-name.ts';

const kinds: Readonly<Record<AnySetting['~kind'], (value: unknown) => boolean>> = {
  Array: IsArray,
  Boolean: IsBoolean,
  Enum: IsEnum,
  Integer: IsInteger,
  Object: IsObject,
  Record: IsRecord,
  String: IsString,
};

test('configSchema consists of what TypeBox takes for its own types', () => {
  expect(IsObject(configSchema)).toBe(true);
  for (const { key, setting } of namedSettings) {
    expect(kinds[setting['~kind']](setting), key).toBe(true);
  }
});

test('configSchema accepts the defaults and refuses unknown keys in the eyes of TypeBox', async () => {
  const config = structuredClone(await loadConfig());
  expect([...Value.Errors(configSchema, config)]).toEqual([]);
  expect(Value.Check(configSchema, { ...config, other: 1 })).toBe(false);
  const limits = { ...config.registry.limits, maxStreams: 0 };
  expect(Value.Check(configSchema, { ...config, registry: { ...config.registry, limits } })).toBe(
    false,
  );
});

test('configSchema has defaults within bounds and a description of each setting', () => {
  for (const { key, setting } of namedSettings) {
    expect(setting.description, key).toMatch(/^[A-Za-z/"'`].*\.$/s);
    if (setting['~kind'] === 'Integer') {
      expect(setting.default, key).toBeGreaterThanOrEqual(setting.minimum);
      expect(setting.default, key).toBeLessThanOrEqual(setting.maximum);
    }
  }
});

test('configSchema names the unit of a quantity in its key', () => {
  const endings = {
    milliseconds: /Ms$/,
    bytes: /Bytes$/,
    'bytes per second': /[bB]ytesPerSecond$/,
  };
  for (const { key, setting } of namedSettings) {
    if (setting['~kind'] === 'Integer' && setting.unit !== 'items') {
      expect(key).toMatch(endings[setting.unit]);
    }
  }
});

test('setting names follow from the key and are unique', () => {
  expect(environmentName('registry.budgets.connectMs')).toBe('SALVOR_REGISTRY_BUDGETS_CONNECT_MS');
  expect(flagName('registry.budgets.connectMs')).toBe('--registry-budgets-connect-ms');
  expect(new Set(namedSettings.map(({ env }) => env)).size).toBe(namedSettings.length);
  expect(new Set(namedSettings.map(({ flag }) => flag)).size).toBe(namedSettings.length);
});

test('describeSettings puts defaults and bounds into words', () => {
  const byKey = new Map(describeSettings().map((setting) => [setting.key, setting]));
  expect(byKey.get('registry.limits.maxManifestBytes')).toMatchObject({
    env: 'SALVOR_REGISTRY_LIMITS_MAX_MANIFEST_BYTES',
    flag: '--registry-limits-max-manifest-bytes',
    placeholder: 'size',
    defaultText: '8 MiB',
    takes: '64 KiB to 256 MiB',
  });
  expect(byKey.get('node.name')?.defaultText).toBe("the machine's host name");
  expect(byKey.get('registry.allow')).toMatchObject({ defaultText: '*', repeatable: true });
  expect(byKey.get('agent.members.static')?.entries.map(({ key }) => key)).toEqual([
    'name',
    'address',
  ]);
});

test('docs/configuration.md is what "npm run docs" writes', async () => {
  const file = new URL('../../../docs/configuration.md', import.meta.url);
  const page = await format(renderConfigurationPage(), { parser: 'markdown', printWidth: 100 });
  expect(await readFile(file, 'utf8')).toBe(page);
});
