import { cellName } from './cell.ts';
import { runCell, type CellResult } from './run-cell.ts';
import type { ReadyCell, Scene } from './scene.ts';

/** How much may run at a time: a cell of 16 clients counts for more than one of a single client. */
const capacity = 12;
const manyClientsWeight = 4;

/**
 * Runs a scene's cells, several at a time.
 *
 * @param options.slackMs as in runCell
 * @param options.report told each result when it is there
 */
export async function runScene(
  scene: Scene,
  options: { readonly slackMs: number; readonly report: (result: CellResult) => void },
): Promise<CellResult[]> {
  const results: CellResult[] = [];
  const take = (result: CellResult): void => {
    results.push(result);
    options.report(result);
  };
  await scene.beforeAll?.();
  // Those that take longest first, so that the end is not one slow cell alone.
  const waiting = [...scene.cells].sort((x, y) => patience(y) - patience(x));
  const running = new Set<Promise<void>>();
  let load = 0;
  while (waiting.length > 0) {
    const next = waiting[0]!;
    const weight = next.cell.clients > 1 ? manyClientsWeight : 1;
    if (load > 0 && load + weight > capacity) {
      await Promise.race(running);
      continue;
    }
    waiting.shift();
    load += weight;
    const run = runOne(next, options.slackMs)
      .then(take)
      .finally(() => {
        load -= weight;
        running.delete(run);
      });
    running.add(run);
  }
  await Promise.all(running);
  for (const result of (await scene.afterAll?.()) ?? []) take(result);
  return results;
}

function patience({ plan }: ReadyCell): number {
  return plan.expectation.headersMs + (plan.patienceMs ?? 0);
}

async function runOne(ready: ReadyCell, slackMs: number): Promise<CellResult> {
  const { cell, node, plan } = ready;
  try {
    await ready.prepare();
    await ready.strike();
    return await runCell(cell, plan, { node, slackMs });
  } catch (error) {
    return {
      name: cellName(cell),
      value: 0,
      unit: 'ms',
      baseline: null,
      ratio: null,
      n: cell.clients,
      must: 'runs',
      ok: false,
      servable: plan.expectation.servable,
      outcomes: {},
      totalMs: 0,
      trouble: error instanceof Error ? error.message : String(error),
    };
  } finally {
    await ready.restore();
  }
}
