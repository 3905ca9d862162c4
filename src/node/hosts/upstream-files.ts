import { chown, mkdir, readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { sha256 } from './found-file.ts';
import type { ChainEndpoint, HostChain } from './host-chain.ts';
import { replaceFile, type OnStep } from './replace-file.ts';

/** The file that the registry reads; see registry.hostsFile. */
export const UPSTREAMS_FILE = 'hosts.json';

/** One URL, as the registry's configuration has it. File names are relative to the directory. */
interface EndpointSettings {
  readonly url: string;
  readonly namespace?: true;
  readonly credentials?: 'forward';
  readonly ca?: string;
  readonly clientCertificate?: string;
  readonly clientKey?: string;
  readonly headersFile?: string;
}

/** What the registry is told of containerd's hosts, and the files that this names. */
export interface UpstreamSettings {
  readonly mirrors: readonly EndpointSettings[];
  readonly upstreams: Readonly<
    Record<string, { readonly endpoints?: readonly EndpointSettings[] }>
  >;
}

/** Everything that belongs into the directory, by file name. */
export class UpstreamFiles {
  readonly #mirrors: EndpointSettings[] = [];
  readonly #upstreams = new Map<string, { endpoints?: EndpointSettings[] }>();
  readonly #files = new Map<string, string>();

  /** @param chain undefined: just the registry itself, whatever there is for all others */
  addUpstream(registry: string, chain: HostChain | undefined): void {
    const endpoints = chain?.endpoints.map((endpoint) => this.#settings(registry, endpoint));
    this.#upstreams.set(registry, endpoints === undefined ? {} : { endpoints });
  }

  addMirrors({ endpoints }: HostChain): void {
    this.#mirrors.push(...endpoints.map((each) => this.#settings('all', each)));
  }

  get settings(): UpstreamSettings {
    return { mirrors: this.#mirrors, upstreams: Object.fromEntries(this.#upstreams) };
  }

  get isEmpty(): boolean {
    return this.#mirrors.length === 0 && this.#upstreams.size === 0;
  }

  get text(): string {
    return `${JSON.stringify(this.settings, undefined, 2)}\n`;
  }

  /** What is to be in the directory; nothing where there is nothing to say. */
  all(): ReadonlyMap<string, string> {
    return this.isEmpty ? new Map() : new Map([...this.#files, [UPSTREAMS_FILE, this.text]]);
  }

  #settings(registry: string, endpoint: ChainEndpoint): EndpointSettings {
    const { url, namespace, isRegistry, ca, client, headers } = endpoint;
    const named = Object.entries(headers).map(([name, value]) => `${name}: ${value}\n`);
    const file = (kind: string, content: string): string => this.#add(registry, kind, content);
    return {
      url,
      ...(namespace && { namespace }),
      ...(isRegistry && namespace && { credentials: 'forward' as const }),
      ...(ca !== '' && { ca: file('ca.pem', ca) }),
      ...(client && {
        clientCertificate: file('client.pem', client.certificate),
        clientKey: file('client.key', client.key),
      }),
      ...(named.length > 0 && { headersFile: file('headers', named.join('')) }),
    };
  }

  /** Named by content, so that the file that names it changes with it. */
  #add(registry: string, kind: string, content: string): string {
    const name = `${registry.replace(/[^\w.-]/g, '_')}-${sha256(content).slice(0, 12)}.${kind}`;
    this.#files.set(name, content);
    return name;
  }
}

/** Whether the directory holds just this. */
export async function isWritten(
  directory: string,
  files: ReadonlyMap<string, string>,
): Promise<boolean> {
  const names = await readdir(directory).catch(() => []);
  const ours = names.filter(isOurs).toSorted();
  if (ours.join('/') !== [...files.keys()].toSorted().join('/')) return false;
  for (const [name, content] of files) {
    if ((await readFile(join(directory, name), 'utf8')) !== content) return false;
  }
  return true;
}

/** Writes what is missing, then the file that names it, then removes what nothing names. */
export async function writeUpstreamFiles(
  directory: string,
  files: ReadonlyMap<string, string>,
  options: {
    readonly owner?: { readonly uid: number; readonly gid: number };
    onStep?: OnStep | undefined;
  },
): Promise<void> {
  const { owner, onStep } = options;
  if (files.size > 0) {
    const made = await mkdir(directory, { recursive: true, mode: 0o755 });
    if (made !== undefined && owner !== undefined) await chown(directory, owner.uid, owner.gid);
    const inOrder = [...files].toSorted(
      ([a], [b]) => Number(a === UPSTREAMS_FILE) - Number(b === UPSTREAMS_FILE),
    );
    for (const [name, content] of inOrder) {
      const mode = name === UPSTREAMS_FILE ? 0o644 : 0o600;
      await replaceFile(join(directory, name), content, { mode, ...owner, onStep });
    }
  }
  const names = await readdir(directory).catch(() => []);
  // The one that names the others goes first.
  for (const name of names.toSorted(
    (a, b) => Number(b === UPSTREAMS_FILE) - Number(a === UPSTREAMS_FILE),
  )) {
    if (isOurs(name) && !files.has(name)) await rm(join(directory, name), { force: true });
  }
}

function isOurs(name: string): boolean {
  return (
    name === UPSTREAMS_FILE ||
    name.endsWith('.salvor-new') ||
    /-[0-9a-f]{12}\.(ca\.pem|client\.pem|client\.key|headers)$/.test(name)
  );
}
