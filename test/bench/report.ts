import type { Machine } from './machine.ts';
import type { BenchResult } from './result.ts';
import { format } from './rounds.ts';

/** What `--json` writes. */
export interface BenchReport {
  readonly results: readonly BenchResult[];
  readonly machine: Machine;
}

const columns = ['name', 'value', 'ratio', 'against', 'n', 'must', ''];
const rightAligned = new Set([1, 2, 4]);

/** The results as a table that a person can read, a line each. */
export function renderReport({ results, machine }: BenchReport): string {
  const { model, memoryGib, kernel, node, date, versions } = machine;
  const programs = Object.entries(versions).map((entry) => entry.join(' '));
  return [
    `${machine.cpus} × ${model}, ${memoryGib} GiB, Linux ${kernel}, node ${node}, ${date}`,
    `Against ${programs.join(', ')}; all on loopback, Salvor as built by tsc`,
    '',
    ...renderTable([columns, ...results.map(rowOf)]),
  ].join('\n');
}

function rowOf(result: BenchResult): string[] {
  const { name, value, unit, baseline, ratio, n, must, ok } = result;
  return [
    name,
    `${format(value)} ${unit}`,
    ratio === null ? '' : ratio.toFixed(3),
    baseline ?? '',
    String(n),
    must === null ? '' : baseline === null ? `${must} ${unit}` : must,
    ok === null ? '' : ok ? 'ok' : 'MISSED',
  ];
}

function renderTable(rows: readonly (readonly string[])[]): string[] {
  const widths = columns.map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return rightAligned.has(column) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd(),
  );
}
