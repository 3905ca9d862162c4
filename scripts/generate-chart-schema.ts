import { readFile, writeFile } from 'node:fs/promises';

import { renderChartFiles } from './chart-files.ts';

// Writes what the chart has from schemas; with --check only says whether it is up to date.

for (const { file, content } of await renderChartFiles()) {
  if (!process.argv.includes('--check')) {
    await writeFile(file, content);
    continue;
  }
  const current = await readFile(file, 'utf8').catch(() => '');
  if (current === content) continue;
  console.error(`${file.pathname} is not up to date: run "npm run docs"`);
  process.exitCode = 1;
}
