import type { Registry } from 'prom-client';
import type { Inventories } from '../agent/inventory/inventories.ts';
import type { Config } from '../config/schema.ts';
import type { Member, Membership } from '../discovery/membership.ts';
import { digestOf } from '../oci/digest.ts';
import { Policies } from '../policy/policy.ts';
import { allowsRegistry } from '../policy/registry-rules.ts';
import { filterReport, parseVerdict, type ReportFilter } from '../report/filter-report.ts';
import { createReportMetrics } from '../report/report-metrics.ts';
import { ReportSchedule } from '../report/report-schedule.ts';
import { Reporter } from '../report/reporter.ts';
import type { ReportRules } from '../report/verdict.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import type { AdminPage } from '../telemetry/admin-server.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Where an agent's admin server has the report, and how far the one that is being made is. */
const REPORT_PATH = '/api/report';
const REPORT_PROGRESS_PATH = '/api/report/progress';

/** Members asked at a time for their inventories. */
const MAX_ASKED = 16;
/** Any digest will do to see whether a member answers; everybody knows that of nothing. */
const ANY_DIGEST = digestOf(Buffer.alloc(0));

export interface AgentReport {
  readonly reporter: Pick<Reporter<Member>, 'current' | 'progress'>;
  readonly pages: Readonly<Record<string, AdminPage>>;
  start(): void;
  stop(): Promise<void>;
  /** Takes over what is reloadable of a changed configuration. */
  apply(config: Pick<Config, 'registry'>): void;
}

/** The reports of an agent: on its admin port, and in its metrics. */
export function agentReport(
  config: Pick<Config, 'node' | 'agent' | 'registry'>,
  parts: {
    readonly membership: Membership;
    readonly inventories: Pick<Inventories, 'current'>;
    readonly pool: Pick<AgentPool, 'client'>;
    readonly metrics: Registry;
    readonly log: Logger;
  },
): AgentReport {
  const { inventories, log, membership, pool } = parts;
  const { intervalMs, memberTimeoutMs } = config.agent.report;
  const self: Member = { name: config.node.name, address: '' };
  const others = (): Member[] => membership.members().filter(({ name }) => name !== self.name);
  let rules = reportRules(config.registry);
  const reporter = new Reporter<Member>(
    { maxAsked: MAX_ASKED, memberTimeoutMs },
    {
      members: () => [self, ...others()],
      ask: (member, limits) =>
        member === self
          ? inventories.current()
          : pool.client(member.address, member.name).inventory(limits),
      rules: () => rules,
      metrics: createReportMetrics(parts.metrics),
      clock: systemClock,
      log,
    },
  );
  const { memberTimeoutMs: timeoutMs } = config.agent.limits;
  const isAlive = ({ address, name }: Member, signal: AbortSignal): Promise<boolean> =>
    pool
      .client(address, name)
      .stat(ANY_DIGEST, { signal, timeoutMs })
      .then(
        () => true,
        () => false,
      );
  const schedule = new ReportSchedule(
    { intervalMs },
    {
      make: () => reporter.current(),
      isFirst: async (signal) => {
        const before = others().filter(({ name }) => name < self.name);
        const answers = await Promise.all(before.map((member) => isAlive(member, signal)));
        return !answers.includes(true);
      },
      clock: systemClock,
      log,
    },
  );
  return {
    reporter,
    pages: {
      [REPORT_PATH]: async (query) => filterReport(await reporter.current(), filterOf(query)),
      [REPORT_PROGRESS_PATH]: () => reporter.progress,
    },
    start: () => schedule.start(),
    stop: async () => {
      reporter.stop();
      await schedule.stop();
    },
    apply: ({ registry }) => {
      rules = reportRules(registry);
    },
  };
}

/** The rules by which the registries of a cluster with this configuration serve. */
function reportRules(config: Config['registry']): ReportRules {
  const { allow, deny, limits, upstreams } = config;
  const policies = new Policies(config.policies);
  const registries = { allow, deny, configured: Object.keys(upstreams) };
  return {
    policyFor: (name) => policies.for(name, 'fallback'),
    allowsRegistry: (name) => allowsRegistry(registries, name),
    maxManifestBytes: limits.maxManifestBytes,
  };
}

function filterOf(query: URLSearchParams): ReportFilter {
  const given = (['image', 'platform', 'node'] as const).flatMap((key) => {
    const value = query.get(key);
    return value === null ? [] : [[key, value]];
  });
  const verdicts = query.getAll('verdict').flatMap((text) => parseVerdict(text) ?? []);
  const filter = Object.fromEntries(given) as Omit<ReportFilter, 'verdicts'>;
  return { ...filter, ...(query.has('verdict') ? { verdicts } : {}) };
}
