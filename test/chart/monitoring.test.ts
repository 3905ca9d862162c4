import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { alertNames } from '../../scripts/chart-values-schema.ts';
import { metricGroups } from '../../scripts/metric-catalog.ts';
import { metricLabels } from '../../scripts/metric-labels.ts';
import { chartCheck, chartDirectory } from '../support/helm.ts';
import { repositoryRoot } from '../support/tools.ts';
import { nodePod, render } from './render.ts';

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<'summary' | 'description' | 'runbook_url', string>>;
}

function alertsOf(set: string): readonly Alert[] {
  return render(set).one('PrometheusRule', 'salvor')['spec'].groups[0].rules as readonly Alert[];
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: Readonly<Record<'x' | 'y' | 'w' | 'h', number>>;
  readonly targets?: readonly { readonly expr: string }[];
}

const dashboard = JSON.parse(
  readFileSync(join(chartDirectory, 'dashboards', 'salvor.json'), 'utf8'),
) as { readonly panels: readonly Panel[]; readonly uid: string };
const queries = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));

/** Every metric that the program can have, with the labels that it gives to it. */
const known = new Map(
  metricGroups()
    .flatMap(({ metrics }) => metrics)
    .flatMap(({ labels, name, type }): [string, readonly string[]][] =>
      type === 'histogram'
        ? ['_bucket', '_sum', '_count'].map((part) => [`${name}${part}`, [...labels, 'le']])
        : [[name, labels]],
    ),
);

const targetLabels = ['node', 'pod', 'namespace', 'job', 'instance'];

/** What an expression uses that no metric of the program has. */
function unknownIn(expr: string): string[] {
  const metrics = [...expr.matchAll(/\b(salvor_\w+)(?:\{([^}]*)\})?/g)];
  const used = metrics.map((match) => match[1]!);
  const labels = used.flatMap((name) => known.get(name) ?? []).concat(targetLabels);
  const matchers = metrics.flatMap((match) =>
    [...(match[2] ?? '').matchAll(/(\w+)\s*[=!]/g)].map((label) => label[1]!),
  );
  const grouped = [...expr.matchAll(/\b(?:by|on|without)\s*\(([^)]*)\)/g)].flatMap((match) =>
    match[1]!.split(',').map((label) => label.trim()),
  );
  return [
    ...used.filter((name) => !known.has(name)),
    ...[...matchers, ...grouped].filter((label) => !labels.includes(label)),
    ...metrics.flatMap(([, name = '', matcher = '']) => unknownValues(name, matcher)),
  ];
}

/** Values that a label of the metric never has: such a query would find nothing, and say nothing. */
function unknownValues(metric: string, matcher: string): string[] {
  return [...matcher.matchAll(/(\w+)\s*(?:=~|!=|=)\s*"([^"]*)"/g)].flatMap((match) => {
    const values = metricLabels[metric.replace(/_(?:bucket|sum|count)$/, '')]?.[match[1]!];
    if (values === undefined || 'rule' in values) return [];
    return match[2]!.split('|').filter((value) => !(value in values));
  });
}

test('unknownIn knows the metrics of the program, and their labels', () => {
  expect(known.get('salvor_registry_requests_total')).toEqual(['kind', 'decision', 'status']);
  expect(known.get('salvor_registry_first_byte_seconds_bucket')).toEqual(['kind', 'le']);
  expect(known.get('salvor_registry_streams')).toEqual([]);
  expect(unknownIn('sum by (digest) (salvor_no_such_total{kind="x"})')).toEqual([
    'salvor_no_such_total',
    'kind',
    'digest',
  ]);
});

test('unknownIn finds values that a label never has', () => {
  expect(unknownIn('salvor_report_images{verdict="not_servable"}')).toEqual(['not_servable']);
  expect(unknownIn('salvor_report_images{verdict=~"survives|gone"}')).toEqual(['gone']);
  expect(unknownIn('salvor_report_images{verdict!="survives"}')).toEqual([]);
});

describe('alerts', () => {
  test('are all there, less those that are disabled', () => {
    expect(alertsOf('service-monitor').map(({ alert }) => alert)).toEqual(alertNames());
    const fewer = alertsOf('monitoring').map(({ alert }) => alert);
    expect(fewer).toEqual(alertNames().filter((name) => name !== 'SalvorPeerCopiesInUse'));
  });

  test.each(alertsOf('service-monitor').map((alert) => [alert.alert, alert] as const))(
    '%s asks for what the program counts, and leads to a page that says what to do',
    (name, { annotations, expr, labels }) => {
      expect(unknownIn(expr)).toEqual([]);
      expect(labels['severity']).toMatch(/^(warning|critical)$/);
      const [, page] = /^https:\/\/runbooks\.example\.com\/salvor\/([a-z-]+\.md)$/.exec(
        annotations.runbook_url,
      ) ?? [undefined, ''];
      const runbook = readFileSync(join(repositoryRoot, 'docs', 'runbooks', page), 'utf8');
      expect(runbook).toContain(name);
      const shown = [
        ...`${annotations.summary}${annotations.description}`.matchAll(/\$labels\.(\w+)/g),
      ];
      const kept = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap((match) =>
        match[1]!.split(/, ?/),
      );
      for (const [, label] of shown) expect(kept).toContain(label);
    },
  );

  test('leave out nodes that are not meant to be wired, of which agents are told', async () => {
    const alert = alertsOf('service-monitor').find((each) => each.alert === 'SalvorNodeNotWired');
    expect(alert?.expr).toMatch(
      / unless on \(node\) max by \(node\) \(salvor_agent_wiring_expected\) == 0$/,
    );
    const configOf = (...settings: readonly string[]): string =>
      render('minimal', ...settings).one('ConfigMap', 'salvor')['data']['config.yaml'] as string;
    expect(configOf('--set', 'hosts.sharePercent=5')).toContain('wiredPercent: 5');
    expect(configOf('--set', 'hosts.sharePercent=0')).toContain('wiredPercent: 0');
    expect(configOf()).not.toContain('wiredPercent');
    const pod = nodePod(render('minimal', '--set', 'hosts.sharePercent=5'));
    expect(pod.container('hosts').args.join(' ')).not.toContain('--share');
  });

  test('carry the labels that are wanted', () => {
    for (const { labels } of alertsOf('monitoring')) expect(labels['team']).toBe('platform');
  });
});

describe('monitors', () => {
  test.each([
    ['PodMonitor', 'monitoring', 'podMetricsEndpoints'],
    ['ServiceMonitor', 'service-monitor', 'endpoints'],
  ])('%s asks both processes of each pod, and says on which node they are', (kind, set, key) => {
    const { spec } = render(set).one(kind, 'salvor') as unknown as {
      spec: Record<string, { port: string; relabelings: { targetLabel: string }[] }[]>;
    };
    const endpoints = spec[key] ?? [];
    expect(endpoints.map(({ port }) => port)).toEqual(['registry-admin', 'agent-admin']);
    for (const { relabelings } of endpoints) expect(relabelings[0]?.targetLabel).toBe('node');
  });
});

describe('the dashboard', () => {
  test('is in a ConfigMap that Grafana finds', () => {
    const { data, metadata } = render('monitoring').one('ConfigMap', 'salvor-dashboard');
    expect(metadata.labels?.['grafana_dashboard']).toBe('1');
    expect(JSON.parse(data['salvor.json'] as string)).toEqual(dashboard);
    expect(
      render('service-monitor').one('GrafanaDashboard', 'salvor')['spec'].configMapRef,
    ).toEqual({ name: 'salvor-dashboard', key: 'salvor.json' });
  });

  test('asks for what the program counts, in the language of Prometheus', () => {
    expect(queries.length).toBeGreaterThan(10);
    expect(queries.flatMap(unknownIn)).toEqual([]);
    const plain = queries.map((query) =>
      query.replaceAll('$__rate_interval', '5m').replaceAll('$__range', '1h'),
    );
    const { code, stdout } = chartCheck('', plain);
    expect([code, stdout.trim().split('\n').slice(0, -1)]).toEqual([0, []]);
  });

  test('shows which images hang by one node, and what is kept of last copies', () => {
    const row = dashboard.panels.findIndex(({ title }) => title === 'What would survive?');
    const panels = dashboard.panels.slice(row + 1);
    const inRow = panels.slice(
      0,
      panels.findIndex(({ type }) => type === 'row'),
    );
    const shown = inRow.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)).join('\n');
    const kept = [...known.keys()].filter((name) => name.startsWith('salvor_agent_copies_'));
    // How much is guarded follows from bytes; the number of images says nothing more.
    for (const name of kept.filter((each) => each !== 'salvor_agent_copies_guarded_images')) {
      expect(shown).toContain(name);
    }
    // Agents that made a report once keep its figures: every query takes those of the newest alone.
    const newest = 'and on (instance, job) topk(1, salvor_report_timestamp_seconds)';
    const reports = shown.split('\n').filter((expr) => /salvor_report_(images|serv)/.test(expr));
    expect(reports.map((expr) => expr.includes(newest))).toEqual([true, true, true, true]);
    for (const verdict of ['not-servable', 'single-copy']) {
      expect(shown).toContain(`salvor_report_images{verdict="${verdict}"}`);
    }
  });

  test('has panels that say what they show and do not overlap', () => {
    const cells = new Set<string>();
    for (const { description, gridPos, id, title, type } of dashboard.panels) {
      if (type !== 'row') expect(description, title).toMatch(/\.$/);
      expect(dashboard.panels.filter((panel) => panel.id === id)).toHaveLength(1);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(cells.has(`${x},${y}`), title).toBe(false);
          cells.add(`${x},${y}`);
        }
      }
    }
  });
});
