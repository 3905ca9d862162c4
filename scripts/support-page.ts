import type {
  CaseResult,
  PullResult,
  VersionResult,
} from '../test/faults/containerd/support-result.ts';

/** What docs/support.json holds: what was seen of each version, and when and where. */
export interface SupportResults {
  /** Day of the run. */
  readonly ran: string;
  readonly machine: string;
  readonly versions: readonly VersionResult[];
}

/** The marks in README.md around {@link renderSupportTable}. */
export const supportMarks = {
  begin: '<!-- support table: npm run docs:support -->',
  end: '<!-- end of support table -->',
} as const;

/** Renders the short table: one row a version. Markdown that is not formatted yet. */
export function renderSupportTable({ versions }: SupportResults): string {
  const rows = versions.map((version) => [
    version.version,
    version.release,
    pullsBy(version),
    survived(version, 'direct'),
    survived(version, 'salvor'),
    survived(version, 'killed'),
  ]);
  const heads = ['containerd', 'release', 'pulls by', 'alone', 'with Salvor', 'with Salvor dead'];
  return table(heads, rows);
}

/** Renders docs/containerd-support.md. Markdown that is not formatted yet. */
export function renderSupportPage(results: SupportResults): string {
  const { versions, ran, machine } = results;
  const patience = Math.max(...versions.map(({ patienceSeconds }) => patienceSeconds));
  return [
    '# containerd versions',
    'Each version pulls the same images while the same things go wrong, three times: alone, through ' +
      'Salvor, and with a Salvor whose process is dead. Everything is real: the daemons, the ' +
      'registry, the connections. `npm run test:containerd` builds the versions, `npm run test:all` ' +
      'repeats the runs, `npm run docs:support` writes this page from what they saw. This is from ' +
      `${ran}, on ${machine}.`,
    `Pulls that succeed, of ${caseCount(versions)} that meet ${caseCount(versions) - 1} faults and none:`,
    renderSupportTable(results),
    'The one that fails through Salvor has no good copy anywhere; what is wrong is thrown away, and ' +
      'the next pull succeeds as soon as there is a good one.',
    '## Fault by fault',
    'Alone → through Salvor. A time says that the pull succeeds, and how long it takes; "hangs" ' +
      `that it has no end in ${patience} s. Unless it says otherwise, another node has the image.`,
    faultTable(versions),
    deadSalvor(versions),
    '## How they are set up',
    table(
      ['containerd', '`version` in config.toml', 'who pulls', 'parallel ranges of a layer'],
      versions.map((version) => [
        version.version,
        String(version.configVersion),
        version.pullPath,
        version.rangeBytes === null ? 'off' : `${version.rangeBytes / 1024} KiB`,
      ]),
    ),
    'From 2.1 on the transfer service pulls, unless a setting that it does not know makes CRI pull ' +
      'as before. It takes `config_path` for one directory: with the list of two that 2.2 has by ' +
      'default (`/etc/containerd/certs.d:/etc/docker/certs.d`) it finds no `hosts.toml` at all and ' +
      'says nothing, so name one directory.',
    '',
  ].join('\n\n');
}

function pullsBy({ pullPath, rangeBytes }: VersionResult): string {
  return rangeBytes === null ? pullPath : `${pullPath}, parallel ranges`;
}

function survived({ cases }: VersionResult, way: 'direct' | 'salvor' | 'killed'): string {
  const good = cases.filter((each) => succeeds(each[way])).length;
  return `${good} of ${cases.length}`;
}

function caseCount(versions: readonly VersionResult[]): number {
  return Math.max(...versions.map(({ cases }) => cases.length));
}

function faultTable(versions: readonly VersionResult[]): string {
  const known = new Map(versions.flatMap(({ cases }) => cases.map((each) => [each.id, each])));
  const rows = [...known.values()].map(({ id, title }) => [
    title,
    ...versions.map(({ cases }) => cell(cases.find((each) => each.id === id))),
  ]);
  return table(['what is wrong', ...versions.map(({ version }) => version)], rows);
}

function cell(result: CaseResult | undefined): string {
  if (result === undefined) return '';
  return `${say(result.direct)} → ${say(result.salvor)}`;
}

function say({ outcome, seconds }: PullResult): string {
  return outcome === 'succeeds' ? `${seconds.toFixed(1)} s` : outcome;
}

function deadSalvor(versions: readonly VersionResult[]): string {
  const differences = versions.flatMap(({ version, cases }) =>
    cases
      .filter(({ direct, killed }) => succeeds(direct) !== succeeds(killed))
      .map(({ title, killed }) => `${version}, ${title}: ${killed.outcome}`),
  );
  if (differences.length === 0) return 'With Salvor dead, the same pulls succeed as alone.';
  return `With Salvor dead, the same pulls succeed as alone, but for these: ${differences.join('; ')}.`;
}

function succeeds({ outcome }: PullResult): boolean {
  return outcome === 'succeeds';
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n');
}
