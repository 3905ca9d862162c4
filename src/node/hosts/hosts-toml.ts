import { isTable, parseToml, tableIn, type TomlTable } from '../toml-table.ts';

/** What a hosts.toml says about one host, or about the registry itself. */
export interface HostSettings {
  /** As the file has it; undefined: the registry itself, unnamed. */
  readonly url: string | undefined;
  /** In lower case; undefined: all of them. */
  readonly capabilities: readonly string[] | undefined;
  readonly ca: readonly string[];
  /** Certificate and key; the same file where it holds both. */
  readonly client: readonly (readonly [string, string])[];
  readonly skipVerify: boolean;
  readonly headers: Readonly<Record<string, string>>;
  readonly overridesPath: boolean;
}

/** A hosts.toml as containerd understands it. */
export interface HostsToml {
  /** In the order in which they are asked. */
  readonly hosts: readonly HostSettings[];
  /** What is asked last. */
  readonly server: HostSettings;
}

/** Why something is left as it is, and what would help. */
export interface Refusal {
  readonly reason: string;
  readonly fix: string;
}

/** Thrown inside of this folder for what cannot be taken over; plans turn it into a report. */
export class RefusalError extends Error implements Refusal {
  readonly reason: string;
  readonly fix: string;

  constructor(reason: string, fix: string) {
    super(`${reason}; ${fix}`);
    this.name = 'RefusalError';
    this.reason = reason;
    this.fix = fix;
  }
}

/** The same, for what makes containerd ignore the file as a whole. */
export class IgnoredFileError extends RefusalError {}

const hostKeys = [
  ...['capabilities', 'ca', 'client', 'skip_verify', 'header', 'override_path', 'dial_timeout'],
];
const knownCapabilities = ['pull', 'resolve', 'push', 'referrers'];

/**
 * Understands a hosts.toml. Stricter than containerd: what containerd would pass over, such as a
 * key that it does not know, somebody has written for a reason.
 *
 * @throws RefusalError
 */
export function parseHostsToml(text: string): HostsToml {
  if (text.startsWith('\ufeff')) {
    throw new IgnoredFileError(
      'it begins with a byte order mark',
      'remove it: containerd 2 stops there',
    );
  }
  let root: TomlTable;
  try {
    root = parseToml(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new IgnoredFileError(
      `it is not TOML (${reason})`,
      'correct it: containerd ignores all of it',
    );
  }
  refuseUnknown(root, [...hostKeys, 'server', 'host'], 'the file');
  const { server = '', host } = root;
  if (typeof server !== 'string') throw wrong('server', 'the file');
  if (host !== undefined && !isTable(host)) throw wrong('host', 'the file');
  const hosts = tableIn(root, ['host']);
  const order = hostsInOrder(text);
  if (order.length !== Object.keys(hosts).length || order.some((url) => !isTable(hosts[url]))) {
    throw new RefusalError(
      'a host is not a table of its own',
      'write each as [host."URL"]: containerd 2 sees no other',
    );
  }
  return {
    hosts: order.map((url) => {
      const table = tableIn(hosts, [url]);
      refuseUnknown(table, hostKeys, url);
      return hostSettings(url, table);
    }),
    server: hostSettings(server === '' ? undefined : server, root),
  };
}

/** Hosts in the order of their first table, which is the order in which they are asked. */
function hostsInOrder(text: string): string[] {
  const found = new Set<string>();
  for (const line of text.split(/\r?\n/)) {
    if (!/^\s*\[\s*["']?host["']?\s*\./.test(line)) continue;
    try {
      for (const url of Object.keys(tableIn(parseToml(line), ['host']))) found.add(url);
    } catch {
      // It only looks like a table, inside of a text of several lines.
    }
  }
  return [...found];
}

function hostSettings(url: string | undefined, table: TomlTable): HostSettings {
  const where = url ?? 'the file';
  const { skip_verify: skipVerify = false, override_path: overridesPath = false } = table;
  if (typeof skipVerify !== 'boolean') throw wrong('skip_verify', where);
  if (typeof overridesPath !== 'boolean') throw wrong('override_path', where);
  const { dial_timeout: dialTimeout } = table;
  const isDuration =
    typeof dialTimeout === 'string' && /^(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+$/.test(dialTimeout);
  if (dialTimeout !== undefined && dialTimeout !== '' && !isDuration)
    throw wrong('dial_timeout', where);
  return {
    url,
    capabilities: capabilitiesOf(table['capabilities'], where),
    ca: table['ca'] === undefined ? [] : textsOf(table['ca'], { key: 'ca', where }),
    client: clientOf(table['client'], where),
    skipVerify,
    headers: headersOf(table['header'], where),
    overridesPath,
  };
}

function capabilitiesOf(value: unknown, where: string): readonly string[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw wrong('capabilities', where);
  const names = textsOf(value, { key: 'capabilities', where }).map((name) => name.toLowerCase());
  const unknown = names.find((name) => !knownCapabilities.includes(name));
  if (unknown !== undefined) {
    throw new RefusalError(
      `${where} has the capability "${unknown}"`,
      'correct it: containerd ignores the whole file',
    );
  }
  return names.length === 0 ? undefined : names;
}

function clientOf(value: unknown, where: string): [string, string][] {
  if (value === undefined) return [];
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  return items.map((item): [string, string] => {
    if (typeof item === 'string') return [item, item];
    if (!Array.isArray(item)) throw wrong('client', where);
    const [certificate, key, ...rest] = textsOf(item, { key: 'client', where });
    if (certificate === undefined || key === undefined || rest.length > 0)
      throw wrong('client', where);
    return [certificate, key];
  });
}

function headersOf(value: unknown, where: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isTable(value)) throw wrong('header', where);
  return Object.fromEntries(
    Object.entries(value).map(([name, given]) => {
      const values = textsOf(given, { key: 'header', where });
      const [only, ...others] = values;
      if (only === undefined || others.length > 0) {
        throw new RefusalError(
          `${where} has ${values.length} values for the header ${name}`,
          'give one value',
        );
      }
      return [name, only];
    }),
  );
}

function textsOf(
  value: unknown,
  place: { readonly key: string; readonly where: string },
): string[] {
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  return items.map((item) => {
    if (typeof item !== 'string') throw wrong(place.key, place.where);
    return item;
  });
}

function refuseUnknown(table: TomlTable, known: readonly string[], where: string): void {
  const unknown = Object.keys(table).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  throw new RefusalError(
    `${where} has the key "${unknown}", whose meaning is not known`,
    'remove it if containerd does not need it',
  );
}

function wrong(key: string, where: string): RefusalError {
  return new IgnoredFileError(
    `${key} of ${where} is not of a kind that containerd takes`,
    'correct it: containerd ignores the whole file',
  );
}
