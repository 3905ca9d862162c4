import { glob, readFile } from 'node:fs/promises';
import { dirname, isAbsolute, join, normalize } from 'node:path';

import { parseToml, type TomlTable } from '../toml-table.ts';

const MAX_FILES = 256;

/** One file of containerd's configuration, as it is on disk. */
export interface ConfigFile {
  readonly path: string;
  readonly content: TomlTable;
}

/** Something that keeps containerd from starting, or from reading what was meant. */
export interface ConfigProblem {
  readonly path: string;
  readonly reason: string;
}

/**
 * Reads config.toml and what it imports, in the order in which containerd does: breadth first, each
 * file once, patterns in the order of names.
 *
 * @param options.hostRoot directory under which the node's own "/" is, where that is not "/"
 * @returns no files where there is no config.toml, which is no mistake
 */
export async function readConfigFiles(
  path: string,
  options: { readonly hostRoot?: string } = {},
): Promise<{ readonly files: readonly ConfigFile[]; readonly problems: readonly ConfigProblem[] }> {
  const { hostRoot = '/' } = options;
  const files: ConfigFile[] = [];
  const problems: ConfigProblem[] = [];
  const seen = new Set<string>();
  const pending = [path];
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    if (seen.has(next)) continue;
    seen.add(next);
    if (seen.size > MAX_FILES) {
      problems.push({ path: next, reason: `it is one of more than ${MAX_FILES} files` });
      break;
    }
    try {
      const content = parseToml(await readFile(join(hostRoot, next), 'utf8'));
      files.push({ path: next, content });
      pending.push(...(await importsOf(next, content, hostRoot)));
    } catch (error) {
      if (isMissing(error) && next === path) continue;
      problems.push({ path: next, reason: reasonOf(error) });
    }
  }
  return { files, problems };
}

async function importsOf(parent: string, content: TomlTable, hostRoot: string): Promise<string[]> {
  const { imports } = content;
  if (!Array.isArray(imports)) return [];
  const found: string[] = [];
  for (const each of imports as readonly unknown[]) {
    if (typeof each !== 'string') continue;
    const path = isAbsolute(each) ? normalize(each) : join(dirname(parent), each);
    if (!path.includes('*')) {
      found.push(path);
      continue;
    }
    const matches: string[] = [];
    // Names come out relative to cwd, so that the host's root does not show.
    for await (const match of glob(path.slice(1), { cwd: hostRoot })) matches.push(`/${match}`);
    found.push(...matches.toSorted());
  }
  return found;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
