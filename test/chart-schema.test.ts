import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { expect, test } from 'vitest';
import { renderChartFiles } from '../scripts/chart-files.ts';
import { chartDirectory } from './support/helm.ts';

test('renderChartFiles gives what is committed', async () => {
  for (const { content, file } of await renderChartFiles()) {
    expect(await readFile(file, 'utf8'), `${file.pathname}: run "npm run docs"`).toBe(content);
  }
});

test('values.yaml gives every value of the schema', async () => {
  const content = (await renderChartFiles())[0]?.content ?? '';
  const values = parse(await readFile(join(chartDirectory, 'values.yaml'), 'utf8')) as unknown;
  const optional = [
    // Helm's own, containerd's by distribution, and what Kubernetes has defaults for.
    /^global$/,
    /^config\./,
    /^(hosts|registry|agent|uninstall|tls\.issue)\.resources\.(claims|limits|requests)/,
    /Probe\.(initialDelaySeconds|successThreshold)$/,
  ];
  const missing = missingKeys(JSON.parse(content) as Schema, values);
  expect(missing.filter((key) => !optional.some((pattern) => pattern.test(key)))).toEqual([]);
});

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
}

function missingKeys(schema: Schema, value: unknown, prefix = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, part]) => {
    const inner = (value as Record<string, unknown> | undefined)?.[key];
    return inner === undefined ? [prefix + key] : missingKeys(part, inner, `${prefix}${key}.`);
  });
}
