import { originsOf, type ServedPart } from './served-part.ts';
import { megabytes } from './timeline.ts';

/** One pull of the demo. */
export interface SummaryRow {
  readonly situation: string;
  readonly pull: string;
  readonly result: string;
  readonly seconds: number;
  /** Undefined where Salvor had no part in it. */
  readonly parts: readonly ServedPart[] | undefined;
}

const HEADER = [
  'the registry',
  'pull',
  'result',
  'from it',
  'from nodes',
  'both in one blob',
  'seconds',
];
const FIRST_NUMBER = 3;

/** Renders one line a pull, and who gave how much. */
export function renderSummary(rows: readonly SummaryRow[]): string[] {
  const cells = [HEADER, ...rows.map(cellsOf)];
  const widths = HEADER.map((_, column) =>
    Math.max(...cells.map((line) => line[column]?.length ?? 0)),
  );
  const lines = cells.map((line) =>
    line
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column < FIRST_NUMBER ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd(),
  );
  const [head = '', ...rest] = lines;
  return [head, '-'.repeat(Math.max(...lines.map(({ length }) => length))), ...rest];
}

function cellsOf(row: SummaryRow): string[] {
  const { situation, pull, result, seconds, parts } = row;
  const origins = parts === undefined ? undefined : originsOf(parts);
  const size = (sizeBytes: number | undefined): string =>
    sizeBytes === undefined || sizeBytes === 0 ? '-' : megabytes(sizeBytes);
  return [
    situation,
    pull,
    result,
    size(origins?.upstreamBytes),
    size(origins?.nodeBytes),
    size(origins?.joinedBytes),
    seconds.toFixed(1),
  ];
}
