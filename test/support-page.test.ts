import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format } from 'prettier';
import { describe, expect, test } from 'vitest';
import {
  renderSupportPage,
  renderSupportTable,
  supportMarks,
  type SupportResults,
} from '../scripts/support-page.ts';
import { faultCases } from './faults/containerd/fault-case.ts';
import { containerdVersions } from './support/containerd-version.ts';
import { repositoryRoot } from './support/tools.ts';

const markdown = { parser: 'markdown', printWidth: 100 };

async function read(path: string): Promise<string> {
  return readFile(join(repositoryRoot, path), 'utf8');
}

const results = JSON.parse(await read('docs/support.json')) as SupportResults;

describe('support table', () => {
  test('support table is what docs/support.json says', async () => {
    const page = await format(renderSupportPage(results), markdown);
    expect(await read('docs/containerd-support.md')).toBe(page);
  });

  test('support table in the README is the same, if it has one', async () => {
    const readme = await read('README.md');
    const [before, after] = readme.split(supportMarks.begin);
    const shown = after?.split(supportMarks.end)[0]?.trim();
    const table = await format(renderSupportTable(results), markdown);
    expect(before).toBeDefined();
    if (shown !== undefined) expect(shown).toBe(table.trim());
  });

  test('support table has every version and every fault', () => {
    expect(results.versions.map(({ version, configVersion }) => [version, configVersion])).toEqual(
      containerdVersions.map(({ name, configVersion }) => [name, configVersion]),
    );
    const wanted = faultCases.map(({ id, title }) => ({ id, title }));
    for (const { version, cases } of results.versions) {
      expect(
        cases.map(({ id, title }) => ({ id, title })),
        version,
      ).toEqual(wanted);
    }
  });

  test('support table says nowhere that Salvor fails where containerd alone succeeds', () => {
    const worse = results.versions.flatMap(({ version, cases }) =>
      cases
        .filter(
          ({ direct, salvor }) => direct.outcome === 'succeeds' && salvor.outcome !== 'succeeds',
        )
        .map(({ id }) => `${version}: ${id}`),
    );
    expect(worse).toEqual([]);
  });
});
