import { parse, TomlError } from 'smol-toml';

/** A table of a TOML file, parsed. */
export interface TomlTable {
  readonly [key: string]: unknown;
}

/** Whether a parsed value is a table. Dates are objects as well, lists too. */
export function isTable(value: unknown): value is TomlTable {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
  );
}

/** The value at a path of keys; undefined where a table on the way is missing. */
export function valueIn(table: unknown, path: readonly string[]): unknown {
  let value = table;
  for (const key of path) {
    if (!isTable(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value;
}

/** The table at a path of keys; an empty one where it is missing. */
export function tableIn(table: unknown, path: readonly string[]): TomlTable {
  const value = valueIn(table, path);
  return isTable(value) ? value : {};
}

/**
 * Parses TOML 1.0.
 *
 * @throws Error that says where the mistake is, but not what stands there: it may be a secret
 */
export function parseToml(text: string): TomlTable {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason = ''] = error.message.split('\n', 1);
    const what = reason.replace(/^Invalid TOML document: /, '').replace(/["'`].*["'`]/g, '…');
    // Not as its cause: that one shows the line.
    throw new Error(`line ${error.line}, column ${error.column}: ${what}`);
  }
}
