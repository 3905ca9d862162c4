import { readFile, stat } from 'node:fs/promises';
import { ConfigError } from './config-error.ts';

const maxFileBytes = 1024 * 1024;

/**
 * Reads a configuration file of at most 1 MiB: JSON where the name ends in .json, else YAML 1.2
 * (of which JSON is a part).
 *
 * @returns its content as maps, lists and values; undefined for an empty file
 * @throws {ConfigError} when it cannot be read or is not in that format
 */
export async function readConfigFile(path: string): Promise<unknown> {
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) {
      throw new Error(`it has ${size} bytes, more than ${maxFileBytes}`);
    }
    const content = await readFile(path, 'utf8');
    return path.endsWith('.json') ? (JSON.parse(content) as unknown) : await parseYaml(content);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError([
      {
        key: '--config',
        source: `file ${path}`,
        found: reason.trimEnd().replaceAll('\n', '\n    '),
        expected: 'a readable JSON or YAML file',
      },
    ]);
  }
}

async function parseYaml(content: string): Promise<unknown> {
  // Loaded only when needed: a process without a YAML file does not pay for it in memory.
  const { parse } = await import('yaml');
  return (parse(content, { maxAliasCount: 20, logLevel: 'error' }) as unknown) ?? undefined;
}
