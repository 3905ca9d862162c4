import { libraryMetrics, metricGroups, type MetricDescription } from './metric-catalog.ts';
import { metricLabels, type LabelValues } from './metric-labels.ts';
import { unitOf } from './metric-units.ts';

const introduction = `# Metrics

<!-- Generated from the code by "npm run docs"; changes made here are lost. -->

Each process has \`/metrics\` on its admin port (\`registry.admin\`, \`agent.admin\`), in the text format
of Prometheus; \`salvor start\` has both parts on one. Names say the unit: \`_seconds\`, \`_bytes\`,
\`_ratio\`; \`_total\` marks what only grows, from 0 at the start of the process. Everything else is a
number of items, or 1 for yes and 0 for no.

No label is ever a digest, a repository, an image or a node: how many series there are depends on the
configuration, never on what is pulled. To which node a series belongs says Prometheus; the chart's
monitors add the label \`node\`. What happened to one image is told by \`salvor why\` and the log.

Alerts, with a page for each: [runbooks](README.md#operate). A dashboard comes with the
chart (\`grafanaDashboard\`).
`;

/** The text of docs/metrics.md, before formatting. */
export function renderMetricsPage(): string {
  const groups = metricGroups();
  const library = libraryMetrics();
  return [
    introduction,
    ...groups.flatMap(({ metrics, text, title }) => [
      `## ${title}`,
      text,
      table(metrics),
      ...metrics.flatMap(labelTables),
    ]),
    '## Both: the process',
    'Counted by a library, under its own names; what the system does not tell is left out.',
    table(library),
  ].join('\n\n');
}

function table(metrics: readonly MetricDescription[]): string {
  return [
    '| metric | type | unit | labels | meaning |',
    '|---|---|---|---|---|',
    ...metrics.map(
      (metric) =>
        `| \`${metric.name}\` | ${metric.type} | ${unitOf(metric)} | ` +
        `${metric.labels.map((label) => `\`${label}\``).join(' ')} | ${escape(metric.help)} |`,
    ),
  ].join('\n');
}

/** Values are explained where a metric first has them, and referred to later. */
function labelTables({ labels, name }: MetricDescription): string[] {
  if (labels.length === 0) return [];
  return [`\`${name}\`:`, labels.map((label) => describeLabel({ name, label })).join('\n')];
}

function describeLabel(of: { readonly name: string; readonly label: string }): string {
  const values = metricLabels[of.name]?.[of.label];
  if (values === undefined) throw new Error(`Cannot describe ${of.label} of ${of.name}: no values`);
  const first = firstWith(values);
  const isKnown = first.name !== of.name || first.label !== of.label;
  return `- \`${of.label}\`: ${isKnown ? `as in \`${first.name}\`` : describeValues(values)}.`;
}

function firstWith(values: LabelValues): { readonly name: string; readonly label: string } {
  for (const { name, labels } of metricGroups().flatMap(({ metrics }) => metrics)) {
    const label = labels.find((one) => metricLabels[name]?.[one] === values);
    if (label !== undefined) return { name, label };
  }
  throw new Error('Cannot find a metric with these values of a label');
}

function describeValues(values: LabelValues): string {
  if (isRule(values)) return values.rule;
  return Object.entries(values)
    .map(([value, meaning]) => `\`${value}\` (${meaning})`)
    .join(', ');
}

function isRule(values: LabelValues): values is { readonly rule: string } {
  return 'rule' in values;
}

function escape(text: string): string {
  return text.replace(/[|<>*\\]/g, (character) => `\\${character}`);
}
