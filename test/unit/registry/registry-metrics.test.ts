import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { CAUSES } from '../../../src/registry/fallback.ts';
import {
  createRegistryMetrics,
  type UpstreamState,
} from '../../../src/registry/registry-metrics.ts';

const pagePath = join(import.meta.dirname, '../../../docs/behaviour.md');

const state = (name: string, outageSinceMs?: number): UpstreamState => ({
  name,
  outageSinceMs,
  rateLimitRemaining: [],
});

function scene(configured: readonly string[]) {
  const register = new Registry();
  const upstreams: UpstreamState[] = [];
  const sources = { configured: () => configured, upstreams: () => upstreams };
  const metrics = createRegistryMetrics(register, sources);
  const read = async (): Promise<string[]> =>
    (await register.metrics())
      .split('\n')
      .filter((line) => /^salvor_registry_upstream_outage(_start_timestamp_seconds)?\{/.test(line));
  return { metrics, register, upstreams, read };
}

test('createRegistryMetrics names registries only that the configuration names', () => {
  const { metrics } = scene(['registry.test']);
  const names = ['registry.test', 'docker.io', 'quay.io', ''];
  expect(names.map(metrics.registryLabel)).toEqual([
    'registry.test',
    'docker.io',
    'other',
    'other',
  ]);
});

test('createRegistryMetrics shows an outage as long as it lasts', async () => {
  const { read, upstreams } = scene(['a.test']);
  upstreams.push(state('a.test'));
  expect(await read()).toEqual(['salvor_registry_upstream_outage{registry="a.test"} 0']);
  upstreams[0] = state('a.test', 1_500_000);
  expect(await read()).toEqual([
    'salvor_registry_upstream_outage{registry="a.test"} 1',
    'salvor_registry_upstream_outage_start_timestamp_seconds{registry="a.test"} 1500',
  ]);
  upstreams[0] = state('a.test');
  expect(await read()).toEqual(['salvor_registry_upstream_outage{registry="a.test"} 0']);
  upstreams.pop();
  expect(await read()).toEqual([]);
});

test('createRegistryMetrics shows the longest outage of those that share a label', async () => {
  const { read, upstreams } = scene([]);
  upstreams.push(state('a.test', 3000), state('b.test', 2000), state('c.test'));
  expect(await read()).toEqual([
    'salvor_registry_upstream_outage{registry="other"} 1',
    'salvor_registry_upstream_outage_start_timestamp_seconds{registry="other"} 2',
  ]);
});

test('createRegistryMetrics makes the metrics that docs/behaviour.md describes', async () => {
  const page = await readFile(pagePath, 'utf8');
  const rows = page
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .filter(([, name]) => /^`salvor_registry_\w+`$/.test(name ?? ''));
  const described = rows.map(([, name, type, labels]) => ({ name, type, labels }));
  const { register } = scene([]);
  const made = register.getMetricsAsArray().map((metric) => {
    const { labelNames } = metric as unknown as { readonly labelNames: readonly string[] };
    return {
      name: `\`${metric.name}\``,
      type: String(metric.type),
      labels: labelNames.map((label) => `\`${label}\``).join(' '),
    };
  });
  const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }): number =>
    (a.name ?? '').localeCompare(b.name ?? '');
  expect(described.toSorted(byName)).toEqual(made.toSorted(byName));
});

test('fallbackCause has no cause that docs/behaviour.md leaves out', async () => {
  const page = await readFile(pagePath, 'utf8');
  const paragraph = page.slice(page.indexOf('`cause` is'));
  for (const cause of CAUSES) expect(paragraph).toContain(`\`${cause}\``);
});
