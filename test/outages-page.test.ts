import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format } from 'prettier';
import { describe, expect, test } from 'vitest';
import { renderOutagesPage, type OutageResults } from '../scripts/outages-page.ts';
import { agentRows } from './faults/matrix/agent-rows.ts';
import { upstreamRows } from './faults/matrix/upstream-rows.ts';
import { repositoryRoot } from './support/tools.ts';

async function read(path: string): Promise<string> {
  return readFile(join(repositoryRoot, path), 'utf8');
}

const results = JSON.parse(await read('docs/outages.json')) as OutageResults;

describe('outages page', () => {
  test('outages page is what docs/outages.json says', async () => {
    const page = await format(renderOutagesPage(results), { parser: 'markdown', printWidth: 100 });
    expect(await read('docs/outages.md')).toBe(page);
  });

  test('outages page has every fault of the matrix', () => {
    const names = (rows: readonly { faultClass: string; title: string }[]): string[] =>
      rows.map(({ faultClass, title }) => `${faultClass}: ${title}`);
    expect(names(results.registries)).toEqual(names(upstreamRows));
    expect(names(results.agents)).toEqual(names(agentRows));
  });

  test('outages page has no outcome that must never be', () => {
    const outcomes = [...results.registries, ...results.agents]
      .flatMap(({ cells }) => cells)
      .flatMap((cell) => cell.outcomes);
    expect(outcomes.length).toBeGreaterThan(200);
    for (const never of ['wrong', 'hang', 'closed', 'status'])
      expect(outcomes).not.toContain(never);
  });
});
