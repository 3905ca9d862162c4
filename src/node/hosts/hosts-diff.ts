import { createTwoFilesPatch } from 'diff';

import type { HostsPlan, PlannedFile } from './hosts-plan.ts';
import { UPSTREAMS_FILE } from './upstream-files.ts';

/**
 * What a plan would change, as a unified diff. Values of headers, which may be secrets, are left
 * out, certificates and keys are not shown at all.
 *
 * @param before.upstreams what the registry is told at present
 */
export function hostsDiff(
  plan: HostsPlan,
  before: { readonly upstreamDirectory: string; readonly upstreams: string },
): string {
  const files = plan.files.map(fileDiff).join('');
  const path = `${before.upstreamDirectory}/${UPSTREAMS_FILE}`;
  const after = plan.upstreams.isEmpty ? '' : plan.upstreams.text;
  return files + diffOf(path, before.upstreams, after);
}

function fileDiff({ path, action, found, after, baseBytes }: PlannedFile): string {
  const text = found?.bytes?.toString('utf8') ?? '';
  if (action === 'write') return diffOf(path, text, after ?? '');
  return action === 'withdraw' ? diffOf(path, text, baseBytes?.toString('utf8') ?? '') : '';
}

function diffOf(path: string, before: string, after: string): string {
  if (before === after) return '';
  const [from, to] = [before === '' ? '/dev/null' : path, after === '' ? '/dev/null' : path];
  return createTwoFilesPatch(from, to, withoutHeaders(before), withoutHeaders(after), '', '', {
    context: 3,
  });
}

/** A text without the values of its header tables, all lines of them. */
export function withoutHeaders(text: string): string {
  let isInHeader = false;
  return text
    .split('\n')
    .map((line) => {
      if (/^\s*\[/.test(line)) {
        isInHeader =
          /\.\s*["']?header["']?\s*\]/.test(line) || /^\s*\[\s*["']?header["']?\s*\]/.test(line);
        return line;
      }
      const isDotted = /^\s*(?:.*\.\s*)?["']?header["']?\s*[.=]/.test(line);
      if ((!isInHeader && !isDotted) || /^\s*(#.*)?\r?$/.test(line)) return line;
      const [name] = /^\s*(?:[^\s"'=]+|"[^"=]*"|'[^'=]*')\s*=/.exec(line) ?? [];
      return name === undefined ? '[redacted]' : `${name} [redacted]`;
    })
    .join('\n');
}
