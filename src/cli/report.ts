import { setTimeout as wait } from 'node:timers/promises';
import type { Config } from '../config/schema.ts';
import { parseVerdict } from '../report/filter-report.ts';
import { renderReport } from '../report/render-report.ts';
import type { Report } from '../report/report.ts';
import type { ReportProgress } from '../report/reporter.ts';
import type { ProofResult } from './prove/proof-run.ts';
import { renderProof } from './prove/render-proof.ts';
import { askForReport } from './report-answer.ts';

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
  /** Put every verdict to the proof. */
  readonly prove: boolean;
  /** Of a proof, all pulls together. */
  readonly bandwidth: number;
  /** Images that a proof pulls at a time. */
  readonly concurrency: number;
}

/** What makes `salvor report` end with a status other than 0. */
export type FailOn = 'not-servable' | 'single-copy' | 'incomplete';

/** The exit statuses of `salvor report` beside 0, 1 (it failed) and 2 (it was called wrongly). */
const REPORT_STATUS = { images: 3, incomplete: 4, differences: 5, stopped: 6 };

const POLL_MS = 250;
const PROGRESS_TIMEOUT_MS = 1000;
/** Beside what the members may take. */
const SPARE_MS = 60_000;

/**
 * `salvor report`: asks the agent on this node what would still start, and puts that to the proof
 * where it is told to.
 *
 * @param dependencies.writeOut gets the report, `writeError` the progress
 * @returns the exit status
 * @throws when the agent, or for a proof the registry, cannot be asked
 */
export async function runReport(
  config: Pick<Config, 'agent' | 'registry'>,
  options: ReportOptions & { readonly signal: AbortSignal },
  dependencies: {
    readonly writeOut: (text: string) => void;
    readonly writeError: (text: string) => void;
  },
): Promise<number> {
  const report = await fetchReport(config, options, dependencies.writeError);
  const maxImages = options.all ? Number.POSITIVE_INFINITY : options.limit;
  // A proof takes its time: what is known already is said before it.
  if (!options.json) dependencies.writeOut(renderReport(report, { maxImages }));
  const proof = options.prove
    ? await prove(config, report, { ...options, dependencies })
    : undefined;
  if (options.json) {
    const content = proof === undefined ? report : { ...report, proof };
    dependencies.writeOut(`${JSON.stringify(content, undefined, 2)}\n`);
  } else if (proof !== undefined) {
    dependencies.writeOut(`\n${renderProof(proof)}`);
  }
  return proofStatus(proof) ?? statusOf(report, options.failOn);
}

/** The status for what a proof came to; undefined when all of it agrees, or there was none. */
export function proofStatus(
  proof: Pick<ProofResult, 'differences' | 'isComplete'> | undefined,
): number | undefined {
  if (proof === undefined) return undefined;
  if (proof.differences > 0) return REPORT_STATUS.differences;
  return proof.isComplete ? undefined : REPORT_STATUS.stopped;
}

/** Loads the code of proofs only where one is wanted. */
async function prove(
  config: Pick<Config, 'registry'>,
  report: Report,
  options: ReportOptions & {
    readonly signal: AbortSignal;
    readonly dependencies: { readonly writeError: (text: string) => void };
  },
): Promise<ProofResult> {
  const { bandwidth: bytesPerSecond, concurrency, progress, signal } = options;
  const { writeError } = options.dependencies;
  const writeLine = (line: string): void => writeError(`${line}\n`);
  const { proveReport } = await import('./prove/prove-report.ts');
  return proveReport(config, report, {
    ...{ bytesPerSecond, concurrency, signal },
    ...(progress ? { onProgress: writeLine } : {}),
    onTrouble: (message) => writeLine(`salvor: ${message}`),
  });
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
  config: Pick<Config, 'agent' | 'registry'>,
  options: ReportOptions & { readonly signal: AbortSignal },
  writeError: (text: string) => void,
): Promise<Report> {
  const { admin } = config.agent;
  if (admin === '') {
    throw new Error(
      'Cannot have a report: agent.admin is empty; set an address, such as 127.0.0.1:7491, for the ' +
        'agent and for this command',
    );
  }
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
    const timeoutMs = config.agent.report.memberTimeoutMs + SPARE_MS;
    return await askForReport(`${base}?${query.toString()}`, config, { timeoutMs, signal });
  } finally {
    done.abort();
    await watching;
  }
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
