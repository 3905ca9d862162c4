import { expect, test } from 'vitest';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { agentRows } from './agent-rows.ts';
import type { CellResult } from './run-cell.ts';
import { runMatrix } from './run-matrix.ts';
import type { CellFilter } from './scene.ts';
import { sporadicRow } from './sporadic.ts';
import { upstreamRows } from './upstream-rows.ts';

expectNoLeaks();

const isAll = process.env['SALVOR_TEST_ALL'] !== undefined;
const allTimeoutMs = 600_000;
/** Other tests may run beside these. */
const slackMs = 2000;
/** Some of each kind that end soon, for every run of the tests. */
const few: CellFilter = {
  classes: [
    'refused',
    'silent',
    'status_429',
    'truncated',
    'wrong_digest',
    'token_down',
    'agent_cut',
    'agent_wrong_bytes',
    'agent_future',
    'sporadic',
  ],
  clients: [1],
};

function troublesOf(results: readonly CellResult[]): string[] {
  return results
    .filter(({ ok }) => !ok)
    .map(({ name, must, outcomes, trouble, value }) =>
      [name, must, value, JSON.stringify(outcomes), trouble].join(' | '),
    );
}

test(
  `runMatrix finds ${isAll ? 'every' : 'a quick'} cell of the matrix as it must be`,
  async () => {
    const results = await runMatrix(isAll ? {} : few, { slackMs });
    expect(troublesOf(results)).toEqual([]);
    expect(results.filter(({ name }) => name.startsWith('fault.left.')).length).toBeGreaterThan(5);
    expect(results.length).toBeGreaterThan(isAll ? 500 : 70);
  },
  allTimeoutMs,
);

test('upstreamRows and agentRows name each fault once', () => {
  const names = [...upstreamRows, ...agentRows, sporadicRow].map(({ faultClass }) => faultClass);
  expect(new Set(names).size).toBe(names.length);
  for (const name of few.classes ?? []) expect(names).toContain(name);
});
