/**
 * Writes docs/outages.json from a result of the whole fault matrix, and docs/outages.md from that.
 * Without a file, only the page is written anew.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format } from 'prettier';
import { agentRows } from '../test/faults/matrix/agent-rows.ts';
import { kinds, warmths, type Outcome } from '../test/faults/matrix/cell.ts';
import type { CellResult } from '../test/faults/matrix/run-cell.ts';
import { upstreamRows } from '../test/faults/matrix/upstream-rows.ts';
import { repositoryRoot } from '../test/support/tools.ts';
import {
  renderOutagesPage,
  type OutageCell,
  type OutageResults,
  type OutageRow,
} from './outages-page.ts';

interface MatrixFile {
  readonly at: string;
  readonly machine: string;
  readonly results: readonly CellResult[];
}

const resultsPath = join(repositoryRoot, 'docs', 'outages.json');
const pagePath = join(repositoryRoot, 'docs', 'outages.md');

async function main(path: string | undefined): Promise<void> {
  if (path !== undefined) {
    const matrix = JSON.parse(await readFile(path, 'utf8')) as MatrixFile;
    const text = JSON.stringify(summarise(matrix));
    await writeFile(resultsPath, await format(text, { parser: 'json', printWidth: 100 }));
  }
  const results = JSON.parse(await readFile(resultsPath, 'utf8')) as OutageResults;
  const page = renderOutagesPage(results);
  await writeFile(pagePath, await format(page, { parser: 'markdown', printWidth: 100 }));
}

function summarise({ at, machine, results }: MatrixFile): OutageResults {
  const failed = results.filter(({ ok }) => !ok).map(({ name }) => name);
  if (failed.length > 0) throw new Error(`Cannot write of ${failed.join(', ')}: not as they must`);
  const row = ({ faultClass, title }: Pick<OutageRow, 'faultClass' | 'title'>): OutageRow => ({
    faultClass,
    title,
    cells: cellsOf(faultClass, results),
  });
  return {
    ran: at.slice(0, 10),
    machine,
    cells: results.filter(({ name }) => !name.startsWith('fault.left.')).length,
    registries: upstreamRows.map(row),
    agents: agentRows.map(row),
  };
}

function cellsOf(faultClass: string, results: readonly CellResult[]): OutageCell[] {
  const cells: OutageCell[] = [];
  for (const kind of kinds) {
    for (const warmth of warmths) {
      const prefix = `fault.${faultClass}.${kind}.${warmth}.`;
      const both = results.filter(({ name }) => name.startsWith(prefix));
      if (both.length === 0) throw new Error(`Cannot find ${prefix}*: run the whole matrix`);
      const outcomes = both.flatMap((result) => Object.keys(result.outcomes) as Outcome[]);
      const slowestMs = Math.max(...both.map(({ value }) => value));
      const note = both.find((result) => result.note !== undefined)?.note;
      cells.push({
        kind,
        warmth,
        outcomes: [...new Set(outcomes)].sort(),
        seconds: Math.ceil(slowestMs / 100) / 10,
        ...(note !== undefined && { note }),
      });
    }
  }
  return cells;
}

await main(process.argv[2]);
