import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import type { CellResult } from './matrix/run-cell.ts';
import { runMatrix } from './matrix/run-matrix.ts';
import type { CellFilter } from './matrix/scene.ts';

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
const results = await runMatrix(filter, { slackMs, report, keep: values.keep });
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
