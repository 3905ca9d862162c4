import { readFileSync } from 'node:fs';
import { textFormats } from './text-format.ts';

/**
 * Reads request headers from a file: one "Name: value" a line, empty lines and lines that begin
 * with # left out. Names come out in lower case.
 *
 * @throws when the file cannot be read, or holds something else; without showing what
 */
export function readHeadersFile(path: string): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {};
  for (const [index, line] of readFileSync(path, 'utf8').split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(0, colon));
    const value = line.slice(colon + 1).trim();
    const { headerName, headerValue } = textFormats;
    if (!headerName.matches(name) || !headerValue.matches(value)) {
      throw new Error(
        `Cannot use line ${index + 1} of ${path}: it is no "Name: value", or names a header that ` +
          'may not be set',
      );
    }
    headers[name.toLowerCase()] = value;
  }
  return headers;
}
