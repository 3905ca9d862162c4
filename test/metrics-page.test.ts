import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { format } from 'prettier';
import { describe, expect, test } from 'vitest';
import { metricGroups, type MetricDescription } from '../scripts/metric-catalog.ts';
import { metricLabels } from '../scripts/metric-labels.ts';
import { unitOf } from '../scripts/metric-units.ts';
import { renderMetricsPage } from '../scripts/metrics-page.ts';
import { sourceFiles } from './support/source-imports.ts';
import { repositoryRoot } from './support/tools.ts';

const metrics = metricGroups().flatMap((group) => group.metrics);

/** Labels whose values are few, whatever is pulled. A new one is a decision: say why in its commit. */
const boundedLabels = new Set([
  'cause',
  'code',
  'damage',
  'decision',
  'end',
  'kind',
  'method',
  'nodejs',
  'reason',
  'registry', // those that the configuration describes; all others are one
  'result',
  'role',
  'source',
  'state',
  'status',
  'verdict',
  'version',
]);

/** What is not a base unit, or belongs to what Prometheus adds by itself. */
const badWords =
  /_(ms|millis|milliseconds|micros|nanoseconds|minutes|hours|days|kb|kib|mb|mib|gb|percent|count|sum|bucket)(_|$)/;

/** What is wrong with a metric, by the conventions of Prometheus and our own. */
function faultsOf({ help, labels, name, type }: MetricDescription): string[] {
  const isTotal = name.endsWith('_total');
  const unit = unitOf({ help, name });
  const saysBoolean = /: 1, else 0\./.test(help);
  return [
    ...(/^salvor_(agent|build|config|registry|report|tls)(_[a-z]+)+$|^salvor_agent_members$/.test(
      name,
    )
      ? []
      : ['its name does not begin with the part that has it']),
    ...(badWords.test(name) ? ['its unit is no base unit'] : []),
    ...(type === 'counter' && !isTotal ? ['a counter ends in _total'] : []),
    ...(type !== 'counter' && isTotal ? ['only a counter ends in _total'] : []),
    ...(type === 'histogram' && !['seconds', 'bytes'].includes(unit)
      ? ['a histogram measures something']
      : []),
    ...(/\bbytes\b/i.test(help.split(/[ ,]/)[0]!) && unit !== 'bytes' ? ['it counts bytes'] : []),
    ...(/^(When|How long|How old|Time)\b/.test(help) && !unit.startsWith('seconds')
      ? ['it is about time']
      : []),
    ...(/^[A-Z].*\.$/s.test(help) && help.length >= 20 ? [] : ['its help is no sentence']),
    ...((unit === '0 or 1') === saysBoolean ? [] : ['help of yes or no: "Whether …: 1, else 0."']),
    ...labels
      .filter((label) => !boundedLabels.has(label))
      .map((label) => `label ${label} may have any value`),
  ];
}

describe('metrics page', () => {
  test('metrics page is what "npm run docs" writes', async () => {
    const page = await format(renderMetricsPage(), { parser: 'markdown', printWidth: 100 });
    expect(readFileSync(join(repositoryRoot, 'docs', 'metrics.md'), 'utf8')).toBe(page);
  });

  test('metrics page has every metric that the code names', () => {
    const names = metrics.map(({ name }) => name);
    const unknown = sourceFiles(repositoryRoot, 'src').flatMap((file) => {
      const source = readFileSync(join(repositoryRoot, file), 'utf8');
      return [...source.matchAll(/['`](salvor_[a-z0-9_]+)/g)]
        .map(([, found]) => found!)
        .filter((found) => !names.some((name) => name === found || isStart(found, name)));
    });
    expect(unknown).toEqual([]);
    expect(names.length).toBeGreaterThan(50);
    expect(new Set(names).size).toBe(names.length);
  });

  test('metrics page says what each label can be, and of no label that is not there', () => {
    const has = Object.fromEntries(
      metrics.filter(({ labels }) => labels.length > 0).map(({ name, labels }) => [name, labels]),
    );
    const described = Object.fromEntries(
      Object.entries(metricLabels).map(([name, labels]) => [name, Object.keys(labels)]),
    );
    expect(described).toEqual(has);
  });
});

/** Names that are put together: what stands in the source ends in "_". */
function isStart(found: string, name: string): boolean {
  return found.endsWith('_') && name.startsWith(found);
}

describe('metrics', () => {
  test.each(metrics.map((metric) => [metric.name, metric] as const))(
    '%s has a name, a help and labels as they should be',
    (_, metric) => {
      expect(faultsOf(metric)).toEqual([]);
    },
  );

  test.each<[Partial<MetricDescription>, string]>([
    [{ name: 'salvor_agent_waits_ms', type: 'gauge' }, 'its unit is no base unit'],
    [{ name: 'salvor_agent_waits' }, 'a counter ends in _total'],
    [{ type: 'gauge' }, 'only a counter ends in _total'],
    [{ name: 'waits_total' }, 'its name does not begin with the part that has it'],
    [{ help: 'waits' }, 'its help is no sentence'],
    [{ help: 'Bytes of blobs that were sent.' }, 'it counts bytes'],
    [{ help: 'How long this node has waited.' }, 'it is about time'],
    [{ help: 'Whether this node waits at all.' }, 'help of yes or no: "Whether …: 1, else 0."'],
    [{ labels: ['digest'] }, 'label digest may have any value'],
    [{ labels: ['repository'] }, 'label repository may have any value'],
  ])('faultsOf finds what is wrong with %j', (change, fault) => {
    const good: MetricDescription = {
      name: 'salvor_agent_waits_total',
      type: 'counter',
      help: 'Times that this node has waited.',
      labels: ['reason'],
    };
    expect(faultsOf(good)).toEqual([]);
    expect(faultsOf({ ...good, ...change })).toEqual([fault]);
  });
});
