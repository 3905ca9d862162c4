import { randomInt } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { TestScope } from '../support/test-scope.ts';
import { runSoak } from './run-soak.ts';

// Random pulls under random faults: npm run test:soak -- --minutes N [--seed S] [--json FILE].

const reportEverySeconds = 10;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string' },
    json: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
await using scope = await TestScope.open('soak');
if (values.keep) scope.keep();
const minutes = Number(values.minutes);
const seed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  throw new Error(`Cannot soak for ${values.minutes} minutes with the seed ${values.seed}`);
}
// Before anything can fail.
console.log(`Repeat with: npm run test:soak -- --minutes ${minutes} --seed ${seed}`);
let seconds = 0;
const report = await runSoak(scope, {
  minutes,
  seed,
  onSecond: (pulls) => {
    seconds += 1;
    if (seconds % reportEverySeconds === 0) console.log(`${seconds} s, ${pulls} pulls`);
  },
});
for (const { ok, name, value, unit, must } of report.results) {
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name.padEnd(24)} ${value} ${unit} (${must})`);
}
for (const { image, ...pull } of report.failures.slice(0, 20)) {
  console.log(JSON.stringify({ ...pull, tag: image.tag, holders: image.holders }));
}
if (values.json !== undefined) {
  await writeFile(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
}
process.exitCode = report.results.every(({ ok }) => ok) ? 0 : 1;
