import type { Config } from '../config/schema.ts';
import type { Decision } from '../registry/decision-log.ts';

const TIMEOUT_MS = 5000;

/**
 * `salvor why`: asks the registry on this node what it decided about an image or a digest.
 *
 * @returns what to print
 * @throws when the registry cannot be asked
 */
export async function runWhy(
  config: Pick<Config, 'registry'>,
  options: { readonly about: string; readonly json: boolean },
): Promise<string> {
  const { admin } = config.registry;
  if (admin === '') throw new Error('Cannot ask the registry: registry.admin is empty');
  const url = `http://${admin}/decisions?about=${encodeURIComponent(options.about)}`;
  let response: Response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new Error(`Cannot ask the registry at ${admin}: is it running on this node?`, {
      cause: error,
    });
  }
  if (!response.ok) throw new Error(`Cannot ask the registry at ${admin}: ${response.status}`);
  const { decisions } = (await response.json()) as { decisions: readonly Decision[] };
  if (options.json) return `${JSON.stringify({ decisions }, undefined, 2)}\n`;
  if (decisions.length === 0) {
    return `Nothing was asked about ${options.about} lately (the last requests are kept in memory)\n`;
  }
  return decisions.map(describe).join('\n');
}

function describe(decision: Decision): string {
  const { registry, repository, reference } = decision;
  const separator = reference.includes(':') ? '@' : ':';
  const lines = [
    `${decision.at}  ${decision.method} ${registry}/${repository}${separator}${reference}`,
    `  answered ${decision.status} (${decision.decision}) from ${decision.source}: ` +
      `headers after ${decision.headersMs} ms, ${decision.bytes} bytes in ${decision.totalMs} ms, ` +
      decision.end,
    ...(decision.fallback === undefined ? [] : [`  instead of its upstream: ${decision.fallback}`]),
    ...decision.tried.map(({ source, outcome, ms }) => `  tried ${source}: ${outcome}, ${ms} ms`),
    ...(decision.error === undefined ? [] : [`  told the client: ${decision.error}`]),
  ];
  return `${lines.join('\n')}\n`;
}
