import { TestScope } from '../../support/test-scope.ts';
import { agentRows } from './agent-rows.ts';
import { startActingScene, startSignalScene } from './agent-scene.ts';
import type { CellResult } from './run-cell.ts';
import { runScene } from './run-scene.ts';
import { isWanted, type CellFilter, type Scene } from './scene.ts';
import { runSporadic, sporadicRow } from './sporadic.ts';
import { upstreamRows } from './upstream-rows.ts';
import { startUpstreamScene } from './upstream-scene.ts';

interface Part {
  readonly rows: readonly { readonly faultClass: string }[];
  readonly start: (scope: TestScope, filter: CellFilter) => Promise<Scene>;
}

const parts: readonly Part[] = [
  { rows: upstreamRows, start: startUpstreamScene },
  { rows: agentRows.filter(({ sick }) => !('signal' in sick)), start: startActingScene },
  ...['agent_dead', 'agent_stopped'].map((faultClass) => ({
    rows: [{ faultClass }],
    start: async (scope: TestScope, filter: CellFilter) =>
      startSignalScene(scope, filter, faultClass),
  })),
];

/**
 * Runs the matrix, or a part of it, scene by scene.
 *
 * @param options.slackMs how much later than its budget the slowest headers may be
 * @param options.report told each result when it is there
 * @param options.keep leaves the files of the processes
 */
export async function runMatrix(
  filter: CellFilter,
  options: {
    readonly slackMs: number;
    readonly report?: (result: CellResult) => void;
    readonly keep?: boolean;
  },
): Promise<CellResult[]> {
  const { slackMs, report = () => undefined, keep = false } = options;
  const results: CellResult[] = [];
  for (const { rows, start } of parts) {
    if (!rows.some((row) => isWanted(row, filter))) continue;
    await using scope = await TestScope.open('faults');
    if (keep) scope.keep();
    results.push(...(await runScene(await start(scope, filter), { slackMs, report })));
  }
  if (isWanted(sporadicRow, filter)) {
    await using scope = await TestScope.open('faults');
    const result = await runSporadic(scope);
    report(result);
    results.push(result);
  }
  return results;
}
