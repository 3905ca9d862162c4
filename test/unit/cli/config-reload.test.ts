import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { ConfigReload, createReloadMetrics } from '../../../src/cli/config-reload.ts';
import type { FileContent } from '../../../src/config/config-file.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Config } from '../../../src/config/schema.ts';
import { createLogger } from '../../../src/telemetry/logger.ts';

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

const file = '/etc/salvor/config.json';
const beginMs = Date.UTC(2026, 0, 1);

let lines: Line[];
let applied: Config[];
let register: Registry;
let reload: ConfigReload<FileContent>;
let failure: Error | undefined;

async function load(content: FileContent): Promise<Config> {
  return loadConfig({
    command: 'registry',
    file,
    content,
    env: { SALVOR_REGISTRY_DENY: 'env.test' },
    flags: { 'tls.mode': 'off' },
  });
}

async function take(settings: object): Promise<void> {
  await reload.take({ text: JSON.stringify(settings) });
}

/** Every metric but the time, by name and labels. */
async function counts(): Promise<Record<string, number>> {
  const all: Record<string, number> = {};
  for (const { name, values } of await register.getMetricsAsJSON()) {
    if (name.endsWith('_seconds')) continue;
    for (const { labels, value } of values) all[[name, ...Object.values(labels)].join(' ')] = value;
  }
  return all;
}

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: beginMs });
  lines = [];
  applied = [];
  register = new Registry();
  failure = undefined;
  const config = await load({ text: '{}' });
  const stream = { write: (text: string) => void lines.push(JSON.parse(text) as Line) };
  const source = { command: 'registry', settings: ['log', 'registry', 'tls'], load };
  reload = new ConfigReload(
    { config, source, path: file },
    {
      apply: (next) => {
        if (failure !== undefined) throw failure;
        applied.push(next);
      },
      metrics: createReloadMetrics(register),
      log: createLogger({ level: config.log.level, stream }),
    },
  );
});

afterEach(() => {
  vi.useRealTimers();
});

describe('ConfigReload', () => {
  test('ConfigReload applies what is reloadable below environment and flags', async () => {
    const allow = ['secret.test'];
    await take({ registry: { allow, deny: ['file.test'], listen: '127.0.0.1:1' } });
    expect(applied).toHaveLength(1);
    expect(applied[0]!.registry).toMatchObject({
      allow,
      deny: ['env.test'],
      listen: '127.0.0.1:7480',
    });
    expect(lines).toMatchObject([
      { level: 'warn', settings: ['registry.listen'], msg: 'changed settings need a restart' },
      { level: 'info', file, changed: ['registry.allow'], msg: 'configuration reloaded' },
    ]);
    expect(JSON.stringify(lines)).not.toContain('secret.test');
  });

  test('ConfigReload keeps the old configuration and says every mistake of a bad one', async () => {
    await take({ registry: { allow: ['*.test'] } });
    lines.length = 0;
    await take({ registry: { allow: 7, policies: [{ mode: 'sometimes' }] } });
    expect(applied).toHaveLength(1);
    expect(lines).toMatchObject([
      { level: 'error', file, msg: 'Cannot reload the configuration, the old one stays' },
    ]);
    expect(lines[0]!['mistakes']).toEqual([
      expect.stringMatching(/^registry\.allow \(file \S+config\.json\): found 7, expected a list/),
      expect.stringMatching(/^registry\.policies\[0\]\.match /),
      expect.stringMatching(/^registry\.policies\[0\]\.mode .*found "sometimes", expected one of/),
    ]);
    await take({ registry: { allow: ['*.test'] } });
    expect(applied).toHaveLength(1);
    expect(lines.at(-1)?.msg).toBe('configuration reloaded, nothing to change');
  });

  test.each<[string, FileContent, RegExp]>([
    ['that cannot be read', { failure: 'ENOENT: gone' }, /^--config .*found ENOENT: gone/],
    ['that cannot be parsed', { text: '{"registry":' }, /^--config .*found .*JSON/],
  ])('ConfigReload refuses a file %s', async (_, content, mistake) => {
    await reload.take(content);
    expect(applied).toEqual([]);
    expect(lines.map(({ level }) => level)).toEqual(['error']);
    expect(lines[0]!['mistakes']).toEqual([expect.stringMatching(mistake)]);
  });

  test('ConfigReload keeps the old configuration when the new one cannot be applied', async () => {
    failure = new Error('Cannot read /ca.pem');
    await take({ registry: { allow: ['a.test'] } });
    expect(lines).toMatchObject([{ level: 'error', err: { message: 'Cannot read /ca.pem' } }]);
    failure = undefined;
    await take({ registry: { allow: ['a.test'] } });
    expect(lines.at(-1)).toMatchObject({ changed: ['registry.allow'] });
  });

  test('ConfigReload counts reloads and says how the last one went', async () => {
    expect(await counts()).toEqual({
      'salvor_config_reloads_total ok': 0,
      'salvor_config_reloads_total failed': 0,
      salvor_config_last_reload_successful: 1,
    });
    await take({ registry: 1 });
    expect(await counts()).toMatchObject({
      'salvor_config_reloads_total failed': 1,
      salvor_config_last_reload_successful: 0,
    });
    await take({});
    expect(await counts()).toEqual({
      'salvor_config_reloads_total ok': 1,
      'salvor_config_reloads_total failed': 1,
      salvor_config_last_reload_successful: 1,
    });
  });

  test('ConfigReload notes when a good configuration was read last', async () => {
    const name = 'salvor_config_last_reload_success_timestamp_seconds';
    const read = async (): Promise<number | undefined> =>
      (await register.getSingleMetric(name)?.get())?.values[0]?.value;
    expect(await read()).toBe(beginMs / 1000);
    vi.setSystemTime(beginMs + 5000);
    await take({ registry: 1 });
    expect(await read()).toBe(beginMs / 1000);
    await take({});
    expect(await read()).toBe(beginMs / 1000 + 5);
  });

  test('ConfigReload changes the level of the log and says so at either level', async () => {
    await take({ log: { level: 'error' } });
    expect(lines.map(({ msg }) => msg)).toEqual(['configuration reloaded']);
    await take({ log: { level: 'error' }, registry: { allow: ['a.test'] } });
    expect(lines).toHaveLength(1);
    await take({ log: { level: 'info' }, registry: { allow: ['a.test'] } });
    expect(lines.at(-1)).toMatchObject({ changed: ['log.level'], msg: 'configuration reloaded' });
  });
});
