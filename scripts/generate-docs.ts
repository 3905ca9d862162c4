import { readFile, writeFile } from 'node:fs/promises';

import { format } from 'prettier';

import { renderConfigurationPage } from './configuration-page.ts';

// Writes docs/configuration.md; with --check only says whether it is up to date.

const file = new URL('../docs/configuration.md', import.meta.url);
const page = await format(renderConfigurationPage(), { parser: 'markdown', printWidth: 100 });
if (process.argv.includes('--check')) {
  const current = await readFile(file, 'utf8').catch(() => '');
  if (current !== page) {
    console.error('docs/configuration.md is not up to date: run "npm run docs"');
    process.exitCode = 1;
  }
} else {
  await writeFile(file, page);
}
