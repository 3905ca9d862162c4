import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { withScope } from '../support/test-scope.ts';
import { runSoak } from './run-soak.ts';

expectNoLeaks();

const minutes = 2;
const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31));
const repeat = `npm run test:soak -- --minutes ${minutes} --seed ${seed}`;

test(
  `runSoak finds every servable pull complete, no wrong byte, no hang, no growth (SEED=${seed})`,
  async () => {
    await withScope('soak', async (scope) => {
      const { failures, results } = await runSoak(scope, { minutes, seed });
      for (const { name, value, unit, must } of results) {
        console.log(`${name} ${value} ${unit} (${must})`);
      }
      const bad = results.filter(({ ok }) => !ok);
      expect({ bad, failures }, `Repeat with: ${repeat}`).toEqual({ bad: [], failures: [] });
      expect(results.length).toBeGreaterThan(5);
    });
  },
  (minutes + 2) * 60_000,
);
