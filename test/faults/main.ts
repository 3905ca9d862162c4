import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { TestScope } from '../support/test-scope.ts';
import { agentRows } from './matrix/agent-rows.ts';
import { startActingScene, startSignalScene } from './matrix/agent-scene.ts';
import type { CellResult } from './matrix/run-cell.ts';
import { runScene } from './matrix/run-scene.ts';
import { isWanted, type CellFilter, type Scene } from './matrix/scene.ts';
import { upstreamRows } from './matrix/upstream-rows.ts';
import { startUpstreamScene } from './matrix/upstream-scene.ts';

// The fault matrix: npm run test:faults -- --json FILE. Ends with 1 when a cell is not as it must.

/** Everything runs on one machine, Salvor, clients and registries together. */
const slackMs = 500;

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    class: { type: 'string', multiple: true },
    kind: { type: 'string', multiple: true },
    clients: { type: 'string', multiple: true },
    keep: { type: 'boolean', default: false },
  },
});
const filter = {
  ...(values.class && { classes: values.class }),
  ...(values.kind && { kinds: values.kind }),
  ...(values.clients && { clients: values.clients.map(Number) }),
} as CellFilter;

const acting = agentRows.filter(({ sick }) => !('signal' in sick));
const scenes: readonly {
  readonly rows: readonly { readonly faultClass: string }[];
  readonly start: (scope: TestScope) => Promise<Scene>;
}[] = [
  { rows: upstreamRows, start: (scope) => startUpstreamScene(scope, filter) },
  { rows: acting, start: (scope) => startActingScene(scope, filter) },
  ...['agent_dead', 'agent_stopped'].map((faultClass) => ({
    rows: [{ faultClass }],
    start: (scope: TestScope) => startSignalScene(scope, filter, faultClass),
  })),
];

function report(result: CellResult): void {
  const outcomes = Object.entries(result.outcomes).map(([name, count]) => `${count} ${name}`);
  const verdict = result.ok ? 'ok  ' : 'FAIL';
  const trouble = result.trouble === undefined ? '' : `  ${result.trouble}`;
  console.log(
    `${verdict} ${result.name.padEnd(44)} ${String(result.value).padStart(6)} ${result.unit}  ` +
      `${outcomes.join(', ')}${trouble}`,
  );
}

const startedAt = performance.now();
const results: CellResult[] = [];
for (const { rows, start } of scenes) {
  if (!rows.some((row) => isWanted(row, filter))) continue;
  await using scope = await TestScope.open('faults');
  if (values.keep) scope.keep();
  const scene = await start(scope);
  results.push(...(await runScene(scene, { slackMs, report })));
}
const failed = results.filter(({ ok }) => !ok);
const seconds = Math.round((performance.now() - startedAt) / 1000);
console.log(`${results.length - failed.length} of ${results.length} as they must be, ${seconds} s`);
for (const result of failed) report(result);
if (values.json !== undefined) {
  const machine = `${availableParallelism()} cores, Node ${process.version}`;
  const content = { at: new Date().toISOString(), machine, seconds, slackMs, results };
  await writeFile(values.json, `${JSON.stringify(content, undefined, 1)}\n`);
}
process.exitCode = failed.length === 0 ? 0 : 1;
