import {
  containerdRelease,
  type ContainerdRelease,
} from '../containerd-config/containerd-release.ts';
import { IgnoredFileError, parseHostsToml } from '../hosts/hosts-toml.ts';
import { isTable, parseToml, tableIn, type TomlTable } from '../toml-table.ts';
import type { Facts, HostsDirectory } from './facts.ts';
import { finding, type Finding } from './finding.ts';

interface Context {
  readonly mirrorUrl: string;
  readonly release: ContainerdRelease;
}

const join = 'salvor hosts';

/** Whether each registry's hosts.toml sends containerd to Salvor, in a way that its release takes. */
export function checkHosts({
  hosts,
  settings,
}: Pick<Facts, 'hosts' | 'settings'>): readonly Finding[] {
  const { mirrorUrl } = settings;
  const context = { mirrorUrl, release: containerdRelease(hosts.version) };
  const { directories } = hosts;
  const hasDefault = directories.some(({ registry }) => registry === undefined);
  return [
    ...(hasDefault ? [] : [finding('hosts-default-missing', `no ${hosts.defaultPath}`, join)]),
    ...directories.flatMap((directory) => checkDirectory(directory, context)),
    ...hosts.passedOver.map(({ path, reason }) =>
      finding('hosts-passed-over', `${path}: ${reason}`, `remove ${path} if it is of no use`),
    ),
  ];
}

function checkDirectory(directory: HostsDirectory, context: Context): readonly Finding[] {
  const { path, registry, text, failure } = directory;
  const file = `${path}/hosts.toml`;
  if (failure !== undefined) {
    return [finding('hosts-unreadable', `${file}: ${failure}`, `make ${file} readable`)];
  }
  if (text === undefined || text.trim() === '') {
    const what = text === undefined ? `no ${file}` : `${file} is empty`;
    return registry === undefined
      ? [finding('hosts-default-missing', what, join)]
      : [finding('hosts-shadowed', `${what}, but ${path} is there`, `${join}, or rmdir ${path}`)];
  }
  return checkFile(text, { file, registry }, context);
}

interface Place {
  readonly file: string;
  readonly registry: string | undefined;
}

function checkFile(text: string, { file, registry }: Place, context: Context): Finding[] {
  let root: TomlTable;
  try {
    root = parseToml(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return [finding('hosts-broken', `${file}: ${reason}`, `correct ${file}`)];
  }
  const hosts = Object.entries(tableIn(root, ['host'])).filter(([, table]) => isTable(table));
  const unknown = [root, ...hosts.map(([, table]) => table as TomlTable)]
    .flatMap((table) => textsIn(table['capabilities']))
    .find((name) => !knownTo(context.release).includes(name.toLowerCase()));
  if (unknown !== undefined) {
    const what = `${file}: the capability "${unknown}"`;
    return [finding('hosts-unknown-capability', what, `remove "${unknown}" from ${file}`)];
  }
  try {
    parseHostsToml(text);
  } catch (error) {
    if (error instanceof IgnoredFileError) {
      return [finding('hosts-broken', `${file}: ${error.reason}`, `correct ${file}`)];
    }
  }
  const found = checkHostTables(hosts as [string, TomlTable][], file, context);
  if (registry === undefined && textsIn(root['server']).some((server) => server !== '')) {
    const what = `${file}: server = "${String(root['server'])}"`;
    found.push(finding('hosts-default-server', what, `remove the line "server" from ${file}`));
  }
  return found;
}

function checkHostTables(
  hosts: readonly (readonly [string, TomlTable])[],
  file: string,
  { mirrorUrl, release }: Context,
): Finding[] {
  const index = hosts.findIndex(([url]) => isAt(url, mirrorUrl));
  const own = hosts[index];
  if (own === undefined) {
    const near = hosts.find(([url]) => isOnThisMachine(url))?.[0];
    if (near === undefined) {
      return [finding('hosts-without-salvor', `${file} does not name ${mirrorUrl}`, join)];
    }
    const what = `${file} names ${near}; the registry is at ${mirrorUrl}`;
    return [finding('hosts-wrong-port', what, `[host."${mirrorUrl}"] in ${file}`)];
  }
  const [url, table] = own;
  const found: Finding[] = [];
  const capabilities = textsIn(table['capabilities']).map((name) => name.toLowerCase());
  if (
    capabilities.length > 0 &&
    !['pull', 'resolve'].every((name) => capabilities.includes(name))
  ) {
    const what = `${file}: capabilities = ${JSON.stringify(capabilities)}`;
    const fix = `capabilities = ["pull", "resolve"] below [host."${url}"]`;
    found.push(finding('hosts-no-resolve', what, fix));
  }
  // 2.0.7 to 2.0.11 know the time to dial, and take it for a reason to try https.
  const dialsTls = release.isWithin('>=2.0.7 <2.1.0') ? ['dial_timeout'] : [];
  const tls = ['ca', 'client', 'skip_verify', ...dialsTls].find((key) => table[key] !== undefined);
  if (url.startsWith('http:') && tls !== undefined) {
    const what = `${file}: ${tls} for ${url}`;
    found.push(finding('hosts-tls-on-http', what, `remove ${tls} below [host."${url}"]`));
  }
  if (index > 0) {
    const before = hosts
      .slice(0, index)
      .map(([each]) => each)
      .join(', ');
    found.push(
      finding('hosts-not-first', `${file} names ${before} before Salvor`, `${join} --force`),
    );
  }
  return found;
}

/** Before 2.2 any other word has the whole file ignored, "referrers" among them. */
function knownTo(release: ContainerdRelease): readonly string[] {
  const isOld = release.version !== undefined && !release.isAtLeast('2.2.0');
  return ['pull', 'resolve', 'push', ...(isOld ? [] : ['referrers'])];
}

function textsIn(value: unknown): string[] {
  const items: readonly unknown[] = Array.isArray(value) ? value : [value];
  return items.filter((item) => typeof item === 'string');
}

function parsed(text: string): URL | undefined {
  const url = text.startsWith('http') ? text : `https://${text}`;
  return URL.canParse(url) ? new URL(url) : undefined;
}

function isOnThisMachine(text: string): boolean {
  const host = parsed(text)?.hostname ?? '';
  return ['localhost', '[::1]'].includes(host) || host.startsWith('127.');
}

function isAt(text: string, mirrorUrl: string): boolean {
  const [a, b] = [parsed(text), new URL(mirrorUrl)];
  if (a === undefined || a.port !== b.port || a.protocol !== b.protocol) return false;
  return a.hostname === b.hostname || (isOnThisMachine(text) && isOnThisMachine(mirrorUrl));
}
