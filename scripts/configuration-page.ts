import { describeSections, describeSettings } from '../src/config/describe-settings.ts';
import type { SettingDescription } from '../src/config/describe-settings.ts';

const introduction = `# Configuration

<!-- Generated from src/config/schema.ts by "npm run docs"; changes made here are lost. -->

Every setting has a default. It can be given in a file (\`--config FILE\` or \`SALVOR_CONFIG\`), in the
environment, or as a flag; flags are stronger than the environment, and the environment is stronger
than the file. \`salvor config\` prints what is in effect, and \`salvor config agent\` also checks what
only that command needs.

The file is YAML or, where its name ends in \`.json\`, JSON:

\`\`\`yaml
registry:
  defaultUpstream: docker.io
  budgets:
    hedgeMs: 400ms
  upstreams:
    registry.example.com:
      ca: /etc/salvor/example-ca.pem
\`\`\`

The other names follow from the key: \`registry.budgets.hedgeMs\` is
\`SALVOR_REGISTRY_BUDGETS_HEDGE_MS\` in the environment and \`--registry-budgets-hedge-ms\` as a flag.
There, lists are written with commas, and lists or maps of maps as JSON. A path given as a flag may
be relative.

Times are numbers of milliseconds, or \`400ms\`, \`2s\`, \`5min\`, \`1h30m\`, \`1d\`. Sizes are numbers of
bytes, or \`64KiB\`, \`8MiB\`, \`20GiB\` (1024), \`64kB\`, \`8MB\` (1000).

A key or variable that Salvor does not know is an error, and all mistakes are reported at once, each
with its key, where it was given, what was found and what was expected. The exit code is then 2.

Settings marked *reloadable* are taken over by a running process when the file changes, or on
SIGHUP; all others need a restart. [behaviour.md](behaviour.md#changing-the-configuration) says how.
`;

/** The text of docs/configuration.md, before formatting. */
export function renderConfigurationPage(): string {
  const settings = describeSettings();
  const sections = describeSections().map(({ key, description }) => {
    const own = settings.filter((setting) => setting.key.startsWith(`${key}.`));
    return [`## ${key}`, escape(description), table(own), ...own.flatMap(entryTable)].join('\n\n');
  });
  return [introduction, ...sections].join('\n');
}

function table(settings: readonly SettingDescription[]): string {
  return [
    '| key | default | takes | meaning |',
    '|---|---|---|---|',
    ...settings.map(
      ({ key, defaultText, takes, description, reloadable }) =>
        `| \`${key}\` | ${escape(defaultText)} | ${escape(takes)} | ${escape(description)}` +
        `${reloadable ? ' *Reloadable.*' : ''} |`,
    ),
  ].join('\n');
}

function entryTable({ key, entries }: SettingDescription): string[] {
  return entries.length === 0
    ? []
    : [
        `Each entry of \`${key}\`:`,
        [
          '| key | default | takes | meaning |',
          '|---|---|---|---|',
          ...entries.map(
            (entry) =>
              `| \`${entry.key}\` | ${escape(entry.defaultText)} | ${escape(entry.takes)} | ` +
              `${escape(entry.description)} |`,
          ),
        ].join('\n'),
        '',
      ];
}

function escape(text: string): string {
  return text.replace(/[|<>*\\]/g, (character) => `\\${character}`);
}
