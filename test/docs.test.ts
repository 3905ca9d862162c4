import type { Command } from 'commander';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { alertNames } from '../scripts/chart-values-schema.ts';
import { metricGroups } from '../scripts/metric-catalog.ts';
import { createProgram, type ProgramDependencies } from '../src/cli/program.ts';
import { describeSettings } from '../src/config/describe-settings.ts';
import { parseMarkdown, type MarkdownPage } from './support/markdown.ts';
import { repositoryRoot } from './support/tools.ts';

function read(file: string): string {
  return readFileSync(join(repositoryRoot, file), 'utf8');
}

function filesBelow(folder: string, ending: string): string[] {
  const all = readdirSync(join(repositoryRoot, folder), { recursive: true, encoding: 'utf8' });
  return all.filter((file) => file.endsWith(ending)).map((file) => join(folder, file));
}

const docs = filesBelow('docs', '.md').sort();
const pages: ReadonlyMap<string, MarkdownPage> = new Map(
  ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', ...docs].map((file) => [
    file,
    parseMarkdown(read(file)),
  ]),
);
const eachPage = [...pages];

/** Links to nowhere in this repository; what is elsewhere is not looked at. */
function brokenLinks(file: string, { links }: Pick<MarkdownPage, 'links'>): string[] {
  return links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [path = '', anchor] = link.split('#');
    const target = path === '' ? file : join(dirname(file), path);
    if (!existsSync(join(repositoryRoot, target))) return true;
    return anchor !== undefined && pages.get(target)?.anchors.has(anchor) !== true;
  });
}

const program = createProgram({ version: '', env: {}, loaders: {} } as ProgramDependencies);

/** Calls of the program in a line of code: at its start, or where a shell or kubectl begins one. */
function callsIn(line: string): string[][] {
  const starts = /(?:^|&& |\| |; |-- |sudo |exec |run |ExecStart=\S*)\s*(?:\$ )?salvor (?=\S)/g;
  return [...line.matchAll(starts)].map((match) =>
    line
      .slice(match.index + match[0].length)
      .split(/ (?:&&|\||>|;|#)/)[0]!
      .trim()
      .split(/\s+/),
  );
}

/** What a call of the program has that the program does not know. */
function unknownIn(words: readonly string[]): string[] {
  const found: string[] = [];
  let command: Command = program;
  let isNamed = false;
  for (const word of words) {
    const inner = command.commands.find((one) => one.name() === word || one.alias() === word);
    if (inner !== undefined && !isNamed) command = inner;
    else if (word.startsWith('--')) {
      if (!hasFlag(command, word.split('=')[0]!)) found.push(word);
    } else if (command.registeredArguments.some(({ argChoices }) => argChoices?.includes(word))) {
      isNamed = true;
    } else if (command.commands.length > 0 && /^[a-z-]+$/.test(word) && !isNamed) {
      found.push(word);
      isNamed = true;
    } else isNamed = true;
  }
  return found;
}

function hasFlag(command: Command, flag: string): boolean {
  const known = command.options.flatMap(({ long }) => (long === undefined ? [] : [long]));
  return flag === '--help' || [...known, '--version'].includes(flag);
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
}

const chartValues = JSON.parse(read('charts/salvor/values.schema.json')) as Schema;
const settings = describeSettings().flatMap(({ entries, key }) => [
  key,
  ...entries.map((entry) => `${key}.${entry.key}`),
]);

function isSetting(path: string): boolean {
  return settings.some((key) => key === path || key.startsWith(`${path}.`));
}

function isChartValue(path: string): boolean {
  let schema: Schema | undefined = chartValues;
  for (const part of path.split('.')) {
    if (schema.properties === undefined) return schema.additionalProperties !== false;
    schema = schema.properties[part];
    if (schema === undefined) return false;
  }
  return true;
}

const roots = [...new Set(settings.map((key) => key.split('.')[0]!))];
/** Files and names of hosts that begin as settings do. */
const noSettings = /\.(com|internal|io|test|local|md|proto|sock|socket|ts|toml|crt|key\.pem)$/;

/** Paths that look like settings, and are none, neither of the program nor of the chart. */
function unknownSettings({ inlineCode }: Pick<MarkdownPage, 'inlineCode'>): string[] {
  return inlineCode
    .map((code) => /^(?:config\.)?([a-z]\w*(?:\.[a-z]\w*)+)(?::.*|=.*)?$/i.exec(code)?.[1])
    .filter((path) => path !== undefined)
    .filter((path) => roots.includes(path.split('.')[0]!) && !noSettings.test(path))
    .filter((path) => !tlsFiles.has(path) && !isSetting(path) && !isChartValue(path));
}

/** Keys of Secrets, as cert-manager names them. */
const tlsFiles = new Set(['tls.crt', 'tls.key']);

const metricNames = new Set(
  metricGroups().flatMap(({ metrics }) =>
    metrics.flatMap(({ name, type }) =>
      type === 'histogram' ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  ),
);

function unknownMetrics({ codeLines, inlineCode }: MarkdownPage): string[] {
  const named = [...codeLines, ...inlineCode].flatMap(
    (code) => code.match(/\bsalvor_\w+\*?/g) ?? [],
  );
  return named.filter((name) => !name.endsWith('*') && !metricNames.has(name));
}

describe('documentation', () => {
  test.each(eachPage)('%s links to files and headings that are there', (file, page) => {
    expect(brokenLinks(file, page)).toEqual([]);
  });

  test.each(eachPage)(
    '%s calls the program as it can be called',
    (_, { codeLines, inlineCode }) => {
      const calls = [...codeLines, ...inlineCode].flatMap(callsIn);
      const wrong = calls.filter((words) => unknownIn(words).length > 0);
      expect(wrong.map((words) => `salvor ${words.join(' ')}`)).toEqual([]);
    },
  );

  test.each(eachPage)('%s names settings that there are', (_, page) => {
    expect(unknownSettings(page)).toEqual([]);
  });

  test.each(eachPage)('%s names metrics that there are', (_, page) => {
    expect(unknownMetrics(page)).toEqual([]);
  });

  test('docs/README.md leads to every page', () => {
    const { links } = pages.get('docs/README.md')!;
    const missing = docs
      .map((file) => relative('docs', file))
      .filter((file) => file !== 'README.md');
    expect(missing.filter((file) => !links.includes(file))).toEqual([]);
  });

  test.each(docs)('%s leaves figures about memory to the first page', (file) => {
    // They are measured anew and would be true in one of two places.
    expect(read(file)).not.toMatch(/\d MiB at (?:rest|\s*the\s+highest)/);
  });

  test('docs/security.md counts the packages of the lock file', () => {
    const { packages } = JSON.parse(read('package-lock.json')) as {
      packages: Record<string, { dev?: boolean; devOptional?: boolean; integrity?: string }>;
    };
    const all = Object.entries(packages).flatMap(([path, one]) => (path === '' ? [] : [one]));
    const running = all.filter(({ dev, devOptional }) => !(dev ?? devOptional ?? false));
    expect(read('docs/security.md').replace(/\s+/g, ' ')).toContain(
      `with their hashes: ${running.length} for the running program, ${all.length} with`,
    );
    expect(all.filter(({ integrity }) => integrity === undefined)).toEqual([]);
  });

  test('what is wrong is found', () => {
    const page = parseMarkdown(
      [
        '# A page',
        'See [one](README.md#no-such), [two](docs/none.md), [three](#a-page) and `[x](y.md)`.',
        '`salvor report --no-such`, `salvor nothing`, `salvor certs issue --out X`,',
        '`registry.budgets.noSuchMs`, `registry.example.com`, `config.registry.none: 1`,',
        '`agent.securityContext`, `registry.upstreams.ca`, `salvor_no_such_total`',
        '```',
        'kubectl exec pod -c registry -- salvor why \\',
        '  --jsn IMAGE',
        '```',
      ].join('\n'),
    );
    expect(brokenLinks('CHANGELOG.md', page)).toEqual([
      'README.md#no-such',
      'docs/none.md',
      '#a-page',
    ]);
    const calls = [...page.inlineCode, ...page.codeLines].flatMap(callsIn);
    expect(calls.map(unknownIn)).toEqual([['--no-such'], ['nothing'], [], ['--jsn']]);
    expect(unknownSettings(page)).toEqual(['registry.budgets.noSuchMs', 'registry.none']);
    expect(unknownMetrics(page)).toEqual(['salvor_no_such_total']);
  });
});

/** All that the program may say. */
const sources = filesBelow('src', '.ts').map(read).join('\n');

test('pages agree on the namespace', () => {
  const named = eachPage.flatMap(([, { codeLines, inlineCode }]) =>
    [...codeLines, ...inlineCode].flatMap((line) =>
      /^(?:kubectl|helm) /.test(line)
        ? [...line.matchAll(/ (?:-n|--namespace)[ =](\S+)/g)].map((match) => match[1]!)
        : [],
    ),
  );
  expect(named.length).toBeGreaterThan(20);
  expect([...new Set(named)]).toEqual(['salvor-system']);
});

/** As the chart makes the name of a page from that of an alert. */
function runbookOf(alert: string): string {
  const words = alert.replace(/^Salvor/, '').split(/(?=[A-Z])/);
  return `docs/runbooks/${words.join('-').toLowerCase()}.md`;
}

describe('runbooks', () => {
  test('runbooks are there for each alert, and no others', () => {
    const wanted = alertNames().map(runbookOf).sort();
    expect(docs.filter((file) => file.startsWith('docs/runbooks/'))).toEqual(wanted);
    expect(read('charts/salvor/values.yaml')).toMatch(
      /^ {2}runbookUrl: https:.*\/docs\/runbooks$/m,
    );
  });

  test.each(alertNames())(
    'the page of %s looks for what the program writes to its log',
    (alert) => {
      const lines = pages
        .get(runbookOf(alert))!
        .codeLines.filter((line) => /logs .*\| grep/.test(line));
      const wanted = lines.flatMap((line) => {
        const [, pattern = ''] = /\| grep (?:-\w+ )?'?"?([^'"]+)"?'?$/.exec(line) ?? [];
        return pattern.split('|');
      });
      expect(wanted.filter((text) => text === '' || !sources.includes(text))).toEqual([]);
    },
  );

  test.each(alertNames())('the page of %s says what helps at night', (alert) => {
    const page = pages.get(runbookOf(alert))!;
    const text = read(runbookOf(alert));
    expect(text.startsWith(`# ${alert}\n`)).toBe(true);
    expect(page.sections).toEqual(['Symptom', 'Impact', 'Look first', 'Mend', 'Silence']);
    const commands = page.codeLines.filter((line) => /^(kubectl|salvor|helm) /.test(line));
    expect(commands.length).toBeGreaterThan(1);
  });
});
