/** Endings that say a unit, longest first, as Prometheus wants them: base units alone. */
const units: readonly (readonly [ending: string, unit: string])[] = [
  ['_timestamp_seconds', 'seconds since 1970'],
  ['_seconds', 'seconds'],
  ['_bytes', 'bytes'],
  ['_ratio', '0 to 1'],
  ['_info', '1'],
];

/**
 * The unit of a metric, as its name says it; of what is true or not, as its help does.
 *
 * @param metric its whole name and help
 */
export function unitOf({ help, name }: { readonly name: string; readonly help: string }): string {
  const plain = name.replace(/_total$/, '');
  const known = units.find(([ending]) => plain.endsWith(ending));
  if (known !== undefined) return known[1];
  return help.startsWith('Whether ') ? '0 or 1' : 'items';
}
