import {
  kinds,
  warmths,
  type Kind,
  type Outcome,
  type Warmth,
} from '../test/faults/matrix/cell.ts';

/** What came of one kind of request in one situation, for one client and for many. */
export interface OutageCell {
  readonly kind: Kind;
  readonly warmth: Warmth;
  readonly outcomes: readonly Outcome[];
  /** Until headers, of the slowest client, seconds. */
  readonly seconds: number;
  readonly note?: string;
}

/** A fault and what came of it. */
export interface OutageRow {
  readonly faultClass: string;
  readonly title: string;
  readonly cells: readonly OutageCell[];
}

/** What docs/outages.json has: one run of the fault matrix. */
export interface OutageResults {
  readonly ran: string;
  readonly machine: string;
  readonly cells: number;
  readonly registries: readonly OutageRow[];
  readonly agents: readonly OutageRow[];
}

const kindTitles: Readonly<Record<Kind, string>> = {
  tag: 'a tag',
  digest: 'a digest',
  blob: 'a blob',
  range: 'a part of a blob',
};

const outcomeWords: Readonly<Record<Outcome, string>> = {
  content: 'served',
  unavailable: '503',
  broken: 'breaks off',
  reset: 'reset',
  left: 'goes on slowly',
  as_upstream: 'as the registry gives it',
  wrong: 'wrong',
  closed: 'closed',
  status: 'other',
  hang: 'hangs',
};

/** The page docs/outages.md. */
export function renderOutagesPage(results: OutageResults): string {
  return [
    '# What happens when something fails',
    '',
    'Every line is a way in which a registry or an agent fails, every cell what a client then got',
    'from Salvor: first where a healthy node has the image, then where nobody has it. The time is',
    'the one until headers, of the slowest of one and of sixteen clients at once.',
    '',
    `${results.cells} cells ran on ${results.ran} on ${results.machine}, everything on one machine.`,
    'Repeat it with `npm run test:faults -- --json FILE` and `node scripts/generate-outages.ts FILE`.',
    '',
    '- **served**: all bytes, the right ones, hashed by a client that believes nobody;',
    '- **503**: an OCI error that names the failure and how many nodes were asked;',
    '- **breaks off**: right bytes, then a polite end: containerd goes on from there;',
    '- **reset**: the bytes turned out wrong, containerd must not go on from them;',
    '- **goes on slowly**: the only source there is trickles, as it would without Salvor;',
    '- **as the registry gives it**: a part that cannot be checked; the client checks the whole.',
    '',
    '## The registry …',
    '',
    ...renderTable(results.registries),
    '',
    '## The registry is down, and one agent …',
    '',
    'Nodes that have the image are, in the first half of each cell, this agent and a healthy one; in',
    'the second half this agent alone.',
    '',
    ...renderTable(results.agents),
    '',
  ].join('\n');
}

function renderTable(rows: readonly OutageRow[]): string[] {
  const notes: string[] = [];
  const lines = rows.map(({ title, cells }) => {
    const columns = kinds.map((kind) => {
      const halves = warmths.map((warmth) => {
        const cell = cells.find((one) => one.kind === kind && one.warmth === warmth);
        return cell === undefined ? '–' : renderCell(cell, notes);
      });
      return halves.join(' / ');
    });
    return `| ${[title, ...columns].join(' | ')} |`;
  });
  const titles = ['', ...kinds.map((kind) => kindTitles[kind])];
  return [
    `| ${titles.join(' | ')} |`,
    `| ${titles.map(() => '---').join(' | ')} |`,
    ...lines,
    '',
    ...notes.map((note, index) => `${index + 1}. ${note}`),
  ];
}

function renderCell(cell: OutageCell, notes: string[]): string {
  const words = cell.outcomes.map((outcome) => outcomeWords[outcome]).join(' or ');
  return `${words} ${cell.seconds.toFixed(1)} s${renderNote(cell.note, notes)}`;
}

function renderNote(note: string | undefined, notes: string[]): string {
  if (note === undefined || note === '') return '';
  if (!notes.includes(note)) notes.push(note);
  return ` (${notes.indexOf(note) + 1})`;
}
