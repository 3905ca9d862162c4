import { RefusalError } from './hosts-toml.ts';
import type { ContainerdRelease } from '../containerd-config/containerd-release.ts';
import { isTable, parseToml, type TomlTable } from '../toml-table.ts';

const BEGIN = '# salvor: begin. Written by `salvor hosts`; `salvor hosts restore` takes it out.';
const END = '# salvor: end';
const entryLines = /^# salvor: begin[^\n]*\n[\s\S]*?^# salvor: end[^\n]*(\n|$)/m;

/**
 * What makes containerd ask Salvor first, in a form that its release understands.
 *
 * A release nobody knows gets what all of them take: 1.6 to 2.0.6 pass over dial_timeout, 2.0.7 to
 * 2.0.11 would try https first because of it, and before 2.2 the capability "referrers" has
 * the whole file ignored. No certificates: they, too, would have https tried.
 */
export function ownEntry(mirrorUrl: string, release: ContainerdRelease): string {
  const lines = [
    BEGIN,
    `[host.${JSON.stringify(mirrorUrl)}]`,
    'capabilities = ["pull", "resolve"]',
    ...(release.isAtLeast('2.1.0') ? ['dial_timeout = "2s"'] : []),
    END,
    '',
  ];
  return lines.join('\n');
}

/** The entry in a text, whoever it was written for; undefined where there is none. */
export function findOwnEntry(text: string): string | undefined {
  return entryLines.exec(text.replaceAll('\r\n', '\n'))?.[0];
}

/** A text without the entry, everything else as it is. */
export function withoutOwnEntry(text: string): string {
  return text.replace(/^# salvor: begin[^\n]*\n[\s\S]*?^# salvor: end[^\n]*(\n|$)/m, '');
}

/**
 * Puts the entry before all hosts of a hosts.toml, and changes nothing else: keys of the file
 * itself, which must come before any table, stay where they are.
 *
 * @throws RefusalError when there is no place for it
 */
export function withOwnEntry(text: string, entry: string): string {
  const lineEnd = text.includes('\r\n') ? '\r\n' : '\n';
  const own = entry.replaceAll('\n', lineEnd);
  const { host: hosts, ...rest } = parseToml(text);
  const added = tableOf(parseToml(entry)['host']);
  // Order counts: it is the one in which hosts are asked.
  const wanted = JSON.stringify([rest, { ...added, ...tableOf(hosts) }]);
  const isRight = (joined: string): boolean => {
    try {
      const { host, ...others } = parseToml(joined);
      return JSON.stringify([others, host]) === wanted;
    } catch {
      // Where a table seemed to begin is the middle of something else.
      return false;
    }
  };
  for (const { index } of text.matchAll(/^[ \t]*\[/gm)) {
    const joined = text.slice(0, index) + own + text.slice(index);
    if (isRight(joined)) return joined;
  }
  const joined = text + (text === '' || text.endsWith('\n') ? '' : lineEnd) + own;
  if (isRight(joined)) return joined;
  throw new RefusalError('there is no place for another host in it', 'write its tables one by one');
}

function tableOf(value: unknown): TomlTable {
  return isTable(value) ? value : {};
}
