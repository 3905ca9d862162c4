import { expect, test } from 'vitest';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { withScope } from '../support/test-scope.ts';
import { runSoak } from './run-soak.ts';

expectNoLeaks();

const minutes = 2;

test(
  'runSoak finds every servable pull complete, no wrong byte, no hang, no growth',
  async () => {
    await withScope('soak', async (scope) => {
      const { failures, results, seed } = await runSoak(scope, { minutes });
      const bad = results.filter(({ ok }) => !ok);
      expect({ seed, bad, failures }).toEqual({ seed, bad: [], failures: [] });
      expect(results.length).toBeGreaterThan(5);
    });
  },
  (minutes + 1) * 60_000,
);
