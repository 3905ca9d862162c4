import { setTimeout as delay } from 'node:timers/promises';
import type { RequestLine } from '../../support/cluster.ts';
import type { DirectoryNode } from '../../support/directory-node.ts';
import { waitFor } from '../../support/wait.ts';
import { cellName, type Cell, type Expectation, type Outcome } from './cell.ts';
import { ask, type ClientAnswer } from './client.ts';
import { judge, requestOf } from './judge.ts';

/** containerd gives up on headers after 30 s; so does every client here. */
const headersTimeoutMs = 30_000;
const retryPauseMs = 300;
const logTimeoutMs = 10_000;

/** How a cell's requests are made. */
export interface CellPlan {
  readonly expectation: Expectation;
  /** Every second client asks with HEAD, where there are several. */
  readonly withHeads?: boolean;
  /** A request that broke off is repeated that many times, as kubelet would. */
  readonly retries?: number;
  /** A client leaves after that time in the body, milliseconds. */
  readonly patienceMs?: number;
  /** Bytes that the faulty upstream gives. */
  readonly asUpstream?: Buffer;
  /** More that an answer must satisfy. @returns what is wrong */
  readonly check?: (answer: ClientAnswer, outcome: Outcome) => string | undefined;
}

/** One line of the matrix's results, with more for people. */
export interface CellResult {
  readonly name: string;
  /** Time to headers of the slowest client, milliseconds. */
  readonly value: number;
  readonly unit: string;
  readonly baseline: null;
  readonly ratio: null;
  readonly n: number;
  readonly must: string;
  readonly ok: boolean;
  readonly servable: boolean;
  /** By how many clients. */
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>;
  /** Slowest client, to the last byte. */
  readonly totalMs: number;
  readonly note?: string;
  readonly trouble?: string;
  /** What Salvor's own log says of one of the requests. */
  readonly log?: Pick<
    RequestLine,
    'method' | 'status' | 'decision' | 'source' | 'tried' | 'end' | 'headersMs'
  >;
}

interface Attempt {
  readonly answer: ClientAnswer;
  readonly outcome: Outcome;
  readonly reason?: string | undefined;
}

/**
 * Sends a cell's requests to a node, all at once, and compares what comes with what must.
 *
 * @param slackMs how much later than its budget the slowest headers may be, on a shared machine
 */
export async function runCell(
  cell: Cell,
  plan: CellPlan,
  context: { readonly node: DirectoryNode; readonly slackMs: number },
): Promise<CellResult> {
  const { node, slackMs } = context;
  const logMark = node.registry.lineCount;
  const attempts = await Promise.all(
    Array.from({ length: cell.clients }, async (_, index) =>
      oneClient(cell, plan, { node, index }),
    ),
  );
  const { expectation } = plan;
  const headersMs = Math.max(...attempts.map(({ answer }) => answer.headersMs));
  const bad = attempts.find(({ outcome }) => !expectation.outcomes.includes(outcome));
  const failedCheck = attempts
    .map(({ answer, outcome }) => plan.check?.(answer, outcome))
    .find((trouble) => trouble !== undefined);
  const isLate = headersMs > expectation.headersMs + slackMs;
  const lines = await logLines(cell, node, logMark);
  const trouble = [
    bad === undefined ? undefined : `${bad.outcome}: ${bad.reason ?? ''}`,
    failedCheck,
    isLate ? `headers after ${Math.round(headersMs)} ms` : undefined,
    lines.length === 0 ? 'no log line' : undefined,
  ].filter((text) => text !== undefined);
  const outcomes: Partial<Record<Outcome, number>> = {};
  for (const { outcome } of attempts) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  // Of requests that went different ways, the one that went wrong is told of.
  const line = lines.find(({ status }) => status === bad?.answer.status) ?? lines[0];
  return {
    name: cellName(cell),
    value: Math.round(headersMs),
    unit: 'ms',
    baseline: null,
    ratio: null,
    n: cell.clients,
    must: `<=${expectation.headersMs}, ${expectation.outcomes.join(' or ')}`,
    ok: trouble.length === 0,
    servable: expectation.servable,
    outcomes,
    totalMs: Math.round(Math.max(...attempts.map(({ answer }) => answer.totalMs))),
    ...(expectation.note !== undefined && { note: expectation.note }),
    ...(trouble.length > 0 && { trouble: trouble.join('; ') }),
    ...(line !== undefined && { log: shortened(line) }),
  };
}

async function oneClient(
  cell: Cell,
  plan: CellPlan,
  { node, index }: { readonly node: DirectoryNode; readonly index: number },
): Promise<Attempt> {
  const mayHead = plan.withHeads === true && cell.kind !== 'range';
  const method = mayHead && index % 2 === 1 ? 'HEAD' : 'GET';
  const { path, headers, right } = requestOf(cell);
  for (let retriesLeft = plan.retries ?? 0; ; retriesLeft -= 1) {
    const answer = await ask({
      method,
      url: node.url + path,
      headers,
      headersTimeoutMs,
      bodyTimeoutMs: plan.patienceMs ?? headersTimeoutMs,
    });
    const { outcome, reason } = judge(method, answer, { right, asUpstream: plan.asUpstream });
    const mayRetry = outcome === 'broken' || outcome === 'reset';
    if (retriesLeft === 0 || !mayRetry) return { answer, outcome, reason };
    await delay(retryPauseMs);
  }
}

async function logLines(cell: Cell, node: DirectoryNode, mark: number): Promise<RequestLine[]> {
  const { path } = requestOf(cell);
  const mine = (): RequestLine[] => node.requests(mark).filter(({ url }) => url === path);
  await waitFor(() => mine().length >= cell.clients, { timeoutMs: logTimeoutMs }).catch(
    () => undefined,
  );
  return mine();
}

function shortened(line: RequestLine): NonNullable<CellResult['log']> {
  const { method, status, decision, source, tried, end, headersMs } = line;
  return { method, status, decision, source, tried, end, headersMs };
}
