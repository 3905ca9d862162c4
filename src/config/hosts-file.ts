import { dirname, resolve } from 'node:path';

import { readConfigFile, type FileContent } from './config-file.ts';
import { ConfigError, type ConfigMistake } from './config-error.ts';
import { parseConfigFile } from './config-file.ts';
import { isPlainObject } from './parse-value.ts';
import { settingsFromFile } from './sources.ts';

/** What registry.hostsFile may say, as registry.mirrors and registry.upstreams do. */
export interface HostsSettings {
  readonly mirrors: readonly unknown[];
  readonly upstreams: Readonly<Record<string, unknown>>;
}

const none: HostsSettings = { mirrors: [], upstreams: {} };

/** Settings that name files; in this file they may be relative to its directory. */
const fileKeys = ['ca', 'clientCertificate', 'clientKey', 'headersFile'];

/**
 * Reads what `salvor hosts` has written for the registry. Never throws.
 *
 * @returns undefined where there is no such file, or its directory is closed to this process
 */
export async function readHostsFile(path: string): Promise<FileContent | undefined> {
  const content = await readConfigFile(path);
  const isMissing = 'failure' in content && /^(ENOENT|ENOTDIR|EACCES)\b/.test(content.failure);
  return isMissing ? undefined : content;
}

/** Understands what is in that file; mistakes are added to those that are known. */
export async function parseHosts(
  path: string,
  content: FileContent,
  mistakes: ConfigMistake[],
): Promise<HostsSettings> {
  let parsed: unknown;
  try {
    parsed = await parseConfigFile(path, content);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    mistakes.push(...error.mistakes);
    return none;
  }
  const registry = withAbsolutePaths(parsed, dirname(path));
  const values = settingsFromFile({ registry }, path, mistakes);
  for (const key of values.keys()) {
    if (key === 'registry.mirrors' || key === 'registry.upstreams') continue;
    mistakes.push({ key, source: `file ${path}`, expected: 'nothing but mirrors and upstreams' });
  }
  return {
    mirrors: (values.get('registry.mirrors')?.value ?? []) as readonly unknown[],
    upstreams: (values.get('registry.upstreams')?.value ?? {}) as Record<string, unknown>,
  };
}

function withAbsolutePaths(value: unknown, directory: string): unknown {
  if (Array.isArray(value)) return value.map((item) => withAbsolutePaths(item, directory));
  if (!isPlainObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      fileKeys.includes(key) && typeof inner === 'string' && inner !== ''
        ? resolve(directory, inner)
        : withAbsolutePaths(inner, directory),
    ]),
  );
}
