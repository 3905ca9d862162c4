import type { Config } from '../config/schema.ts';
import { REPORT_SCHEMA, type Report } from '../report/report.ts';

const LOOK_MS = 2000;
const IN_A_POD =
  "in a cluster, in the agent's container: kubectl exec POD -c agent -- salvor report";

type ReportConfig = Pick<Config, 'agent' | 'registry'>;

/**
 * Asks the agent of this node for a report.
 *
 * @param url of the report on its admin port, with the query
 * @param options.timeoutMs for the whole answer
 * @throws when there is none, with what was found out of the reason and what to do
 */
export async function askForReport(
  url: string,
  config: ReportConfig,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<Report> {
  const { signal, timeoutMs } = options;
  const fail = (reason: string, cause?: unknown): never => {
    throw new Error(`Cannot have a report from ${config.agent.admin}: ${reason}`, { cause });
  };
  let response: Response;
  let text: string;
  try {
    const late = AbortSignal.timeout(timeoutMs);
    response = await fetch(url, { signal: AbortSignal.any([signal, late]) });
    text = await response.text();
  } catch (error) {
    signal.throwIfAborted();
    const { cause, name } = error as Error & { cause?: { code?: string } };
    if (name === 'TimeoutError') {
      return fail(`not within ${timeoutMs / 1000} s, beyond agent.report.memberTimeoutMs`, error);
    }
    return fail(await whyNobodyAnswers(config, cause?.code ?? 'no answer', signal), error);
  }
  if (!response.ok) return fail(await whyRefused(config, response.status, signal));
  const report = parse(text);
  if (report === undefined) return fail('what answers there is no agent of Salvor');
  // Told apart as numbers: the agent may be of another version than this program.
  const schema: number = report.schema;
  if (schema !== REPORT_SCHEMA) {
    return fail(`its form is ${schema}, not ${REPORT_SCHEMA}: use the program of its version`);
  }
  return report;
}

/** The agent's socket tells an agent that is not there from one with another admin address. */
async function whyNobodyAnswers(
  config: ReportConfig,
  code: string,
  signal: AbortSignal,
): Promise<string> {
  const { ownAgent, socketOf } = await import('./doctor-agents.ts');
  const agent = ownAgent(config);
  try {
    await agent.reach([], { timeoutMs: LOOK_MS, signal });
    return (
      `${code}, but an agent answers at ${socketOf(config)}: its agent.admin is another address; ` +
      `give this command the same, by --config or --agent-admin, or run it ${IN_A_POD}`
    );
  } catch {
    signal.throwIfAborted();
    return (
      `${code}, and nobody answers at ${socketOf(config)}: start \`salvor agent\` on this node, or ` +
      `run this where one runs; ${IN_A_POD}`
    );
  } finally {
    agent.close();
  }
}

async function whyRefused(
  { agent: { admin } }: ReportConfig,
  status: number,
  signal: AbortSignal,
): Promise<string> {
  const late = AbortSignal.timeout(LOOK_MS);
  const metrics = await fetch(`http://${admin}/metrics`, {
    signal: AbortSignal.any([signal, late]),
  }).then(
    async (response) => response.text(),
    () => '',
  );
  signal.throwIfAborted();
  const role = /^salvor_build_info\{[^}]*\brole="(\w+)"/m.exec(metrics)?.[1];
  if (role === undefined) return `what answers there (status ${status}) is no agent of Salvor`;
  if (role === 'registry') {
    return 'that is the registry; agent.admin of this command must be that of the agent';
  }
  if (status === 403) return 'agents tell it on their own machine alone: run this on that node';
  return status === 404 ? 'the agent is too old for reports' : `the agent answers ${status}`;
}

function parse(text: string): Report | undefined {
  try {
    const content = JSON.parse(text) as Report | null;
    return typeof content?.schema === 'number' ? content : undefined;
  } catch {
    return undefined;
  }
}
