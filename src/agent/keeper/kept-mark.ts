import { REFERENCE_PREFIX } from './child-labels.ts';

/** The label that says which other labels of the same blob are Salvor's. */
export const KEPT_MARK = 'salvor.dev/kept';

/** containerd refuses a label whose key and value together are longer. */
const MAX_LABEL_CHARS = 4096;
/** No image has more children, so a mark that says so is not one of ours. */
const MAX_POSITION = 100_000;
const partPattern = /^(?<kind>config|[lm]\.)?(?<first>\d{1,6})?(?:-(?<last>\d{1,6}))?$/;

/**
 * Writes down which labels were added, as "config,l.0-5,m.2".
 *
 * @param keys of labels that refer to children
 * @returns undefined when it does not fit into a label
 */
export function encodeMark(keys: Iterable<string>): string | undefined {
  const singles: string[] = [];
  const positions = new Map<string, number[]>();
  for (const key of new Set(keys)) {
    const parts = partsOf(key.slice(REFERENCE_PREFIX.length));
    if (parts === undefined) continue;
    const { kind, first } = parts;
    if (first === undefined) singles.push(kind);
    else positions.set(kind, [...(positions.get(kind) ?? []), first]);
  }
  const ranges = [...positions].flatMap(([kind, all]) =>
    rangesOf(all).map((range) => kind + range),
  );
  const mark = [...singles, ...ranges].sort().join(',');
  return KEPT_MARK.length + mark.length > MAX_LABEL_CHARS ? undefined : mark;
}

/** The keys that a mark names. What cannot be understood is left out. */
export function decodeMark(mark: string | undefined): Set<string> {
  const keys = new Set<string>();
  if (mark === undefined || mark === '' || mark.length > MAX_LABEL_CHARS) return keys;
  for (const part of mark.split(',')) {
    const parts = partsOf(part);
    if (parts === undefined) continue;
    const { kind, first, last = first } = parts;
    if (first === undefined || last === undefined) {
      keys.add(REFERENCE_PREFIX + kind);
      continue;
    }
    for (let position = first; position <= last && position < MAX_POSITION; position += 1) {
      keys.add(`${REFERENCE_PREFIX}${kind}${position}`);
    }
  }
  return keys;
}

function partsOf(part: string): { kind: string; first?: number; last?: number } | undefined {
  const groups = partPattern.exec(part)?.groups;
  if (groups === undefined) return undefined;
  const { kind = '', first, last } = groups as Partial<Record<string, string>>;
  if (first === undefined) return kind === 'config' && last === undefined ? { kind } : undefined;
  return { kind, first: Number(first), ...(last === undefined ? {} : { last: Number(last) }) };
}

function rangesOf(positions: readonly number[]): string[] {
  const sorted = [...positions].sort((a, b) => a - b);
  const ranges: { first: number; last: number }[] = [];
  for (const position of sorted) {
    const open = ranges.at(-1);
    if (open !== undefined && position === open.last + 1) open.last = position;
    else ranges.push({ first: position, last: position });
  }
  return ranges.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`));
}
