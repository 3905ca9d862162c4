import { readFileSync } from 'node:fs';

/** The version in package.json, which lies two folders up in the sources and in the build alike. */
export function readVersion(): string {
  const content = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(content) as { readonly version: string };
  return version;
}
