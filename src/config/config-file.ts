import { readFile, stat } from 'node:fs/promises';
import { ConfigError } from './config-error.ts';

const maxFileBytes = 1024 * 1024;

/** What was found where a configuration file should be: its text, or why there is none. */
export type FileContent = { readonly text: string } | { readonly failure: string };

/** Reads a configuration file of at most 1 MiB. Never throws. */
export async function readConfigFile(path: string): Promise<FileContent> {
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) {
      return { failure: `it has ${size} bytes, more than ${maxFileBytes}` };
    }
    return { text: await readFile(path, 'utf8') };
  } catch (error) {
    return { failure: messageOf(error) };
  }
}

/**
 * Parses what a configuration file holds: JSON where its name ends in .json, else YAML 1.2 (of
 * which JSON is a part).
 *
 * @returns maps, lists and values; undefined for an empty file
 * @throws {ConfigError} when it could not be read or is not in that format
 */
export async function parseConfigFile(path: string, content: FileContent): Promise<unknown> {
  if ('failure' in content) throw unreadable(path, content.failure);
  const { text } = content;
  try {
    return path.endsWith('.json') ? (JSON.parse(text) as unknown) : await parseYaml(text);
  } catch (error) {
    throw unreadable(path, withoutContent(messageOf(error)));
  }
}

/** Parsers quote what they cannot read, which may be a secret. */
function withoutContent(message: string): string {
  const [line = ''] = message.split(/:?\n/, 1);
  return line
    .replace(/,? (\.{3})?".*"(\.{3})?(?= is not valid JSON)/, '')
    .replace(/"[^"]*"/g, '"…"');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function unreadable(path: string, reason: string): ConfigError {
  return new ConfigError([
    {
      key: '--config',
      source: `file ${path}`,
      found: reason.trimEnd().replaceAll('\n', '\n    '),
      expected: 'a readable JSON or YAML file',
    },
  ]);
}

async function parseYaml(text: string): Promise<unknown> {
  // Loaded only when needed: a process without a YAML file does not pay for it in memory.
  const { parse } = await import('yaml');
  return (parse(text, { maxAliasCount: 20, logLevel: 'error' }) as unknown) ?? undefined;
}
