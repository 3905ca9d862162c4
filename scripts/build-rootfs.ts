/**
 * Makes the root filesystem of the container image without a container engine.
 *
 * Usage: npm run build && node scripts/build-rootfs.ts DIRECTORY
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { buildRootFilesystem, sizeBytes } from './root-filesystem.ts';

const mebibyte = 1024 ** 2;
const [target] = process.argv.slice(2);
const program = resolve(import.meta.dirname, '..', 'dist');

if (target === undefined) {
  console.error('Usage: npm run build && node scripts/build-rootfs.ts DIRECTORY');
  process.exitCode = 2;
} else if (!existsSync(join(program, 'main.js'))) {
  console.error('Cannot find dist/main.js: run `npm run build`');
  process.exitCode = 1;
} else if (existsSync(target) && readdirSync(target).length > 0) {
  console.error(`Cannot build in ${target}: it is not empty`);
  process.exitCode = 1;
} else {
  buildRootFilesystem({ directory: target, program });
  for (const part of ['', 'usr/local/bin', 'opt/salvor/node_modules', 'opt/salvor/dist']) {
    const size = sizeBytes(join(target, part)) / mebibyte;
    console.log(`${size.toFixed(1).padStart(7)} MiB  ${part === '' ? 'all' : part}`);
  }
}
