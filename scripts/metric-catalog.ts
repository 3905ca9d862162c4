import { Counter, Gauge, Histogram, Registry, Summary } from 'prom-client';
import { createAgentMetrics } from '../src/agent/agent-metrics.ts';
import { createBootstrapMetrics } from '../src/agent/bootstrap/bootstrap-metrics.ts';
import { createBackfillMetrics } from '../src/agent/keeper/backfill-metrics.ts';
import { createKeeperMetrics } from '../src/agent/keeper/keeper-metrics.ts';
import { createLastCopiesMetrics } from '../src/agent/keeper/last-copies-metrics.ts';
import { LastProof } from '../src/agent/last-proof.ts';
import { createPullMetrics } from '../src/agent/pulls/pull-metrics.ts';
import { createReloadMetrics } from '../src/cli/config-reload.ts';
import { createMembershipMetrics } from '../src/cli/membership.ts';
import { createIdentityMetrics } from '../src/cli/node-identity.ts';
import { createRegistryMetrics } from '../src/registry/registry-metrics.ts';
import { ProofReports } from '../src/registry/proof/proof-reports.ts';
import { createReportMetrics } from '../src/report/report-metrics.ts';
import { createMetricsRegistry } from '../src/telemetry/metrics.ts';

/** A metric as it is registered. */
export interface MetricDescription {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram' | 'summary';
  readonly help: string;
  readonly labels: readonly string[];
}

/** Metrics of one purpose. */
export interface MetricGroup {
  readonly title: string;
  readonly text: string;
  readonly metrics: readonly MetricDescription[];
}

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined };

/** Those who register metrics, in the order of the page. No server is started for it. */
const groups: readonly {
  readonly title: string;
  readonly text: string;
  readonly register: (register: Registry) => void;
}[] = [
  {
    title: 'Registry',
    text: 'Of `salvor registry`: what containerd asked for on this node, and who gave it.',
    register: (register) => {
      createRegistryMetrics(register, { configured: () => [], upstreams: () => [] });
    },
  },
  {
    title: 'Registry: proofs',
    text: 'Requests of `salvor report --prove`, which count nowhere else.',
    register: (register) => {
      new ProofReports({ register, log });
    },
  },
  {
    title: 'Agent',
    text: 'Of `salvor agent`: what this node gives to others.',
    register: (register) => void createAgentMetrics(register),
  },
  {
    title: 'Agent: nodes without Salvor',
    text:
      'Of the listener that `agent.bootstrap.listen` opens; where it does not, there are none: see ' +
      '[cold-start.md](cold-start.md).',
    register: (register) => void createBootstrapMetrics(register),
  },
  {
    title: 'Agent: pulls of this node',
    text: 'Whether containerd asks the registry of this node at all.',
    register: (register) => void createPullMetrics(register),
  },
  {
    title: 'Agent: members',
    text: 'Whom this agent knows: see [membership.md](membership.md).',
    register: (register) =>
      void createMembershipMetrics(register, {
        status: () => ({ source: 'static', count: 0, kept: 0 }) as never,
      }),
  },
  {
    title: 'Agent: layers that stay',
    text: 'References to layers, put back while an image is pulled: see [behaviour.md](behaviour.md).',
    register: (register) => void createKeeperMetrics(register),
  },
  {
    title: 'Agent: backfill and repair',
    text: 'What is fetched to complete images on this node: see [keeping.md](keeping.md).',
    register: (register) => void createBackfillMetrics(register),
  },
  {
    title: 'Agent: last copies',
    text: 'Images that stay although their runtime removes them: see [keeping.md](keeping.md).',
    register: (register) => void createLastCopiesMetrics(register),
  },
  {
    title: 'Agent: report',
    text:
      'What the last report about the cluster said. Only the member that makes it has them: see ' +
      '[report.md](report.md).',
    register: (register) => void createReportMetrics(register),
  },
  {
    title: 'Agent: proof',
    text: 'What the last `salvor report --prove` on this node came to.',
    register: (register) => {
      new LastProof({ path: undefined }, { register, clock: { now: () => 0 }, log });
    },
  },
  {
    title: 'Both: identity',
    text: 'Certificates, where `tls.mode` is `mutual`: see [security.md](security.md).',
    register: (register) => void createIdentityMetrics(register),
  },
  {
    title: 'Both: configuration',
    text: 'Changed configuration files.',
    register: (register) => void createReloadMetrics(register),
  },
];

/** Every metric of Salvor's own, by purpose. */
export function metricGroups(): readonly MetricGroup[] {
  const known = groups.map(({ register, text, title }) => {
    const registry = new Registry();
    register(registry);
    return { title, text, metrics: describeAll(registry) };
  });
  const process = processMetrics().filter(({ name }) => name.startsWith('salvor_'));
  return [...known, { title: 'Both: build', text: 'Which build it is.', metrics: process }];
}

/** Metrics of the process that a library counts, under names of its own. */
export function libraryMetrics(): readonly MetricDescription[] {
  return processMetrics().filter(({ name }) => !name.startsWith('salvor_'));
}

let processDescriptions: readonly MetricDescription[] | undefined;

function processMetrics(): readonly MetricDescription[] {
  // Once: each registry watches the event loop for as long as the process lives.
  processDescriptions ??= describeAll(createMetricsRegistry({ role: 'agent', version: '0.0.0' }));
  return processDescriptions;
}

function describeAll(registry: Registry): MetricDescription[] {
  return registry.getMetricsAsArray().map((metric) => ({
    name: metric.name,
    type: typeOf(metric),
    help: metric.help,
    labels: (metric as unknown as { readonly labelNames: readonly string[] }).labelNames,
  }));
}

function typeOf(metric: object): MetricDescription['type'] {
  if (metric instanceof Counter) return 'counter';
  if (metric instanceof Gauge) return 'gauge';
  if (metric instanceof Histogram) return 'histogram';
  if (metric instanceof Summary) return 'summary';
  throw new Error('Cannot tell the type of a metric: it is none that the library has');
}
