import { setTimeout as wait } from 'node:timers/promises';
import type { Config } from '../config/schema.ts';
import { parseVerdict } from '../report/filter-report.ts';
import { renderReport } from '../report/render-report.ts';
import { REPORT_SCHEMA, type Report } from '../report/report.ts';
import type { ReportProgress } from '../report/reporter.ts';

/** What `salvor report` takes beside the settings. */
export interface ReportOptions {
  readonly json: boolean;
  /** Every image instead of the worst. */
  readonly all: boolean;
  readonly limit: number;
  readonly failOn: readonly FailOn[];
  readonly image?: string;
  readonly platform?: string;
  readonly node?: string;
  readonly verdict: readonly string[];
  /** Tell how far it is. */
  readonly progress: boolean;
}

/** What makes `salvor report` end with a status other than 0. */
export type FailOn = 'not-servable' | 'single-copy' | 'incomplete';
export const FAIL_ON: readonly FailOn[] = ['not-servable', 'single-copy', 'incomplete'];

/** The exit statuses of `salvor report` beside 0, 1 (it failed) and 2 (it was called wrongly). */
export const REPORT_STATUS = { images: 3, incomplete: 4 };

const POLL_MS = 250;
const PROGRESS_TIMEOUT_MS = 1000;
/** Beside what the members may take. */
const SPARE_MS = 60_000;

/**
 * `salvor report`: asks the agent on this node what would still start.
 *
 * @param dependencies.writeOut gets the report, `writeError` the progress
 * @returns the exit status
 * @throws when the agent cannot be asked
 */
export async function runReport(
  config: Pick<Config, 'agent'>,
  options: ReportOptions & { readonly signal: AbortSignal },
  dependencies: {
    readonly writeOut: (text: string) => void;
    readonly writeError: (text: string) => void;
  },
): Promise<number> {
  const report = await fetchReport(config, options, dependencies.writeError);
  const maxImages = options.all ? Number.POSITIVE_INFINITY : options.limit;
  dependencies.writeOut(
    options.json
      ? `${JSON.stringify(report, undefined, 2)}\n`
      : renderReport(report, { maxImages }),
  );
  return statusOf(report, options.failOn);
}

/** The status for what a report says: an incomplete one is named before what it says of images. */
export function statusOf(
  { isComplete, summary }: Pick<Report, 'isComplete' | 'summary'>,
  failOn: readonly FailOn[],
): number {
  if (failOn.includes('incomplete') && !isComplete) return REPORT_STATUS.incomplete;
  const { notServable, singleCopy } = summary;
  const isBad =
    (failOn.includes('not-servable') && notServable > 0) ||
    (failOn.includes('single-copy') && notServable + singleCopy > 0);
  return isBad ? REPORT_STATUS.images : 0;
}

async function fetchReport(
  config: Pick<Config, 'agent'>,
  options: ReportOptions & { readonly signal: AbortSignal },
  writeError: (text: string) => void,
): Promise<Report> {
  const { admin } = config.agent;
  if (admin === '') throw new Error('Cannot ask the agent: agent.admin is empty');
  const base = `http://${admin}/api/report`;
  const query = new URLSearchParams();
  for (const key of ['image', 'platform', 'node'] as const) {
    const value = options[key];
    if (value !== undefined) query.set(key, value);
  }
  for (const verdict of options.verdict) {
    if (parseVerdict(verdict) !== undefined) query.append('verdict', verdict);
  }
  const done = new AbortController();
  const watching = options.progress
    ? watch(`${base}/progress`, { signal: done.signal, writeError })
    : undefined;
  try {
    const { signal } = options;
    const late = AbortSignal.timeout(config.agent.report.memberTimeoutMs + SPARE_MS);
    return await ask(`${base}?${query.toString()}`, admin, AbortSignal.any([signal, late]));
  } finally {
    done.abort();
    await watching;
  }
}

async function ask(url: string, admin: string, signal: AbortSignal): Promise<Report> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(`Cannot ask the agent at ${admin}: is it running on this node?`, {
      cause: error,
    });
  }
  if (response.status === 404) {
    throw new Error(`Cannot ask the agent at ${admin}: it is too old for reports`);
  }
  if (!response.ok) throw new Error(`Cannot ask the agent at ${admin}: ${response.status}`);
  const report = (await response.json()) as Report;
  // Told apart as numbers: the agent may be of another version than this program.
  const schema: number = report.schema;
  if (schema !== REPORT_SCHEMA) {
    throw new Error(`Cannot read the report of ${admin}: its form is ${schema}, not 1`);
  }
  return report;
}

/** Writes how many members have answered, whenever that changes. */
async function watch(
  url: string,
  options: { readonly signal: AbortSignal; readonly writeError: (text: string) => void },
): Promise<void> {
  const { signal, writeError } = options;
  let last = '';
  while (!signal.aborted) {
    try {
      await wait(POLL_MS, undefined, { signal });
      const limit = AbortSignal.any([signal, AbortSignal.timeout(PROGRESS_TIMEOUT_MS)]);
      const response = await fetch(url, { signal: limit });
      const { answered, isRunning, members } = (await response.json()) as ReportProgress;
      const line = `${answered} of ${members} nodes answered\n`;
      if (isRunning && line !== last) writeError(line);
      last = line;
    } catch {
      // Whether the agent can be asked is said by the request for the report itself.
    }
  }
}
