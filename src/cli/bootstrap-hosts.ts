import { mkdir, readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { parseAddress, textFormats } from '../config/text-format.ts';
import { bootstrapEntry, withoutBootstrapEntry } from '../node/hosts/bootstrap-entry.ts';
import { findOwnEntry, withOwnEntry } from '../node/hosts/own-entry.ts';
import { DEFAULT_DIRECTORY, isMissing } from '../node/hosts/registry-directory.ts';
import { replaceFile } from '../node/hosts/replace-file.ts';

/** Where agents listen for nodes without Salvor, unless told. */
const DEFAULT_PORT = 7492;

/** What `salvor hosts bootstrap` takes. */
export interface BootstrapHostsOptions {
  /** "address" or "address:port" of agents' listeners, in the order in which they are asked. */
  readonly neighbour: readonly string[];
  /** Paths on the node. */
  readonly ca: string;
  readonly clientCert: string;
  readonly clientKey: string;
  /** A directory of containerd's config_path; undefined: the text is printed. */
  readonly dir?: string;
  /** Only for images of this registry; undefined: for those of all that have no directory. */
  readonly registry?: string;
}

/**
 * `salvor hosts bootstrap`: the hosts.toml that is put into a machine's image, so that a node asks
 * other nodes' agents for as long as Salvor has not come to it. It takes no lock, unlike the others:
 * the lock is in the state directory of a node, and an image has none.
 *
 * @returns what to print
 * @throws when an option makes no sense, what is in the file leaves no place for neighbours, or
 *   Salvor is at work there already
 */
export async function runBootstrapHosts(options: BootstrapHostsOptions): Promise<string> {
  const { ca, clientCert, clientKey, dir, registry } = options;
  const entry = bootstrapEntry({
    // containerd ignores a file that has a table twice.
    urls: [...new Set(options.neighbour.map(urlOf))],
    ca: absolute('--ca', ca),
    clientCertificate: absolute('--client-cert', clientCert),
    clientKey: absolute('--client-key', clientKey),
  });
  if (dir === undefined) return entry;
  const directory = join(dir, directoryOf(registry));
  const path = join(directory, 'hosts.toml');
  const before = await readFile(path, 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return '';
    throw error;
  });
  if (findOwnEntry(before) !== undefined) {
    throw new Error(
      `Cannot write ${path}: Salvor is at work there already; run \`salvor hosts restore\` first`,
    );
  }
  const text = joined(path, withoutBootstrapEntry(before), entry);
  await mkdir(directory, { recursive: true });
  await replaceFile(path, text, { mode: 0o644 });
  return `wrote ${path}\n`;
}

function joined(path: string, text: string, entry: string): string {
  try {
    return withOwnEntry(text, entry);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot write ${path}: ${reason}`, { cause: error });
  }
}

function urlOf(neighbour: string): string {
  const bare = neighbour.replace(/^\[(.*)\]$/, '$1');
  const text = isIP(bare) === 6 ? `[${bare}]` : neighbour;
  const place = parseAddress(text) ?? parseAddress(`${text}:${DEFAULT_PORT}`);
  if (place === undefined || place.port === 0) {
    throw new Error(
      `Cannot use ${neighbour} as a neighbour: give an address or name, with a port or without, ` +
        `such as 10.0.0.1 or 10.0.0.1:${DEFAULT_PORT}`,
    );
  }
  const { host, port } = place;
  return `https://${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

function absolute(flag: string, path: string): string {
  if (textFormats.absolutePath.matches(path)) return path;
  throw new Error(`Cannot use ${path} as ${flag}: give the absolute path that it has on the node`);
}

/** As containerd looks for it; a colon in a name is not possible everywhere. */
function directoryOf(registry: string | undefined): string {
  if (registry === undefined) return DEFAULT_DIRECTORY;
  if (!textFormats.registryHost.matches(registry)) {
    throw new Error(
      `Cannot use ${registry} as a registry: expected ${textFormats.registryHost.expected}`,
    );
  }
  return registry.replace(/:(\d+)$/, '_$1_');
}
