/**
 * Writes docs/support.json from what `npm run test:all` left in `.work/support/`, and from that
 * docs/containerd-support.md and the table in README.md. Versions that have not run keep what is
 * known of them.
 */
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { format } from 'prettier';
import {
  resultsDirectory,
  type PullResult,
  type VersionResult,
} from '../test/faults/containerd/support-result.ts';
import { containerdVersions } from '../test/support/containerd-version.ts';
import { repositoryRoot } from '../test/support/tools.ts';
import {
  renderSupportPage,
  renderSupportTable,
  supportMarks,
  type SupportResults,
} from './support-page.ts';

const resultsPath = join(repositoryRoot, 'docs', 'support.json');
const pagePath = join(repositoryRoot, 'docs', 'containerd-support.md');
const readmePath = join(repositoryRoot, 'README.md');

async function main(): Promise<void> {
  const known = await readKnown();
  const fresh = await readFresh();
  const results = fresh.length === 0 ? known : merge(known, fresh);
  if (results === undefined) throw new Error('Cannot find results: run `npm run test:all` first');
  const markdown = { parser: 'markdown', printWidth: 100 };
  await writeFile(
    resultsPath,
    await format(JSON.stringify(results), { parser: 'json', printWidth: 100 }),
  );
  await writeFile(pagePath, await format(renderSupportPage(results), markdown));
  await updateReadme(await format(renderSupportTable(results), markdown));
  console.log(`docs/support.json: ${results.versions.map(({ version }) => version).join(', ')}`);
}

async function readKnown(): Promise<SupportResults | undefined> {
  const text = await readFile(resultsPath, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as SupportResults);
}

async function readFresh(): Promise<VersionResult[]> {
  const names = await readdir(resultsDirectory).catch(() => []);
  const texts = await Promise.all(
    names.map((name) => readFile(join(resultsDirectory, name), 'utf8')),
  );
  return texts.map((text) => JSON.parse(text) as VersionResult);
}

function merge(known: SupportResults | undefined, fresh: readonly VersionResult[]): SupportResults {
  const all = [...fresh, ...(known?.versions ?? [])];
  const versions = containerdVersions
    .map(({ name }) => all.find(({ version }) => version === name))
    .filter((version) => version !== undefined);
  const day = new Date().toISOString().slice(0, 10);
  return { ran: day, machine: `${cpus().length} cores`, versions: versions.map(withoutReasons) };
}

/** What containerd said has ports and times in it, which are other ones with every run. */
function withoutReasons(version: VersionResult): VersionResult {
  const cases = version.cases.map(({ id, title, direct, salvor, killed }) => ({
    id,
    title,
    direct: withoutReason(direct),
    salvor: withoutReason(salvor),
    killed: withoutReason(killed),
  }));
  return { ...version, cases };
}

function withoutReason({ outcome, seconds }: PullResult): PullResult {
  return { outcome, seconds };
}

async function updateReadme(table: string): Promise<void> {
  const text = await readFile(readmePath, 'utf8');
  const begin = text.indexOf(supportMarks.begin);
  const end = text.indexOf(supportMarks.end);
  if (begin === -1 || end < begin) return;
  const before = text.slice(0, begin + supportMarks.begin.length);
  await writeFile(readmePath, `${before}\n\n${table}\n${text.slice(end)}`);
}

await main();
