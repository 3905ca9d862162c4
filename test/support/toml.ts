/** What a TOML file can say here. */
export interface TomlTable {
  readonly [key: string]: TomlValue | TomlTable;
}

type TomlValue = string | number | boolean | readonly string[] | readonly TomlTable[];

/** Renders a table and the tables in it. Arrays of tables become arrays of inline tables. */
export function renderToml(table: TomlTable, path: readonly string[] = []): string {
  const lines: string[] = path.length === 0 ? [] : [`[${path.join('.')}]`];
  const below: string[] = [];
  for (const [key, value] of Object.entries(table)) {
    const name = renderKey(key);
    if (isTable(value)) below.push(renderToml(value, [...path, name]));
    else lines.push(`${name} = ${renderValue(value)}`);
  }
  return `${[...lines, ''].join('\n')}\n${below.join('')}`;
}

function renderKey(key: string): string {
  return /^[\w-]+$/.test(key) ? key : JSON.stringify(key);
}

function renderValue(value: TomlValue | TomlTable): string {
  if (Array.isArray(value)) return `[${value.map(renderValue).join(', ')}]`;
  if (!isTable(value)) return JSON.stringify(value);
  const fields = Object.entries(value).map(
    ([key, field]) => `${renderKey(key)} = ${renderValue(field)}`,
  );
  return `{ ${fields.join(', ')} }`;
}

function isTable(value: TomlValue | TomlTable): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value);
}
