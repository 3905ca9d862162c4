import { readFile, writeFile } from 'node:fs/promises';

import { format } from 'prettier';

import { renderConfigurationPage } from './configuration-page.ts';
import { renderMetricsPage } from './metrics-page.ts';

// Writes the pages that follow from the code; with --check only says whether they are up to date.

const pages = { configuration: renderConfigurationPage, metrics: renderMetricsPage };

for (const [name, render] of Object.entries(pages)) {
  const file = new URL(`../docs/${name}.md`, import.meta.url);
  const page = await format(render(), { parser: 'markdown', printWidth: 100 });
  if (!process.argv.includes('--check')) {
    await writeFile(file, page);
    continue;
  }
  const current = await readFile(file, 'utf8').catch(() => '');
  if (current === page) continue;
  console.error(`docs/${name}.md is not up to date: run "npm run docs"`);
  process.exitCode = 1;
}
