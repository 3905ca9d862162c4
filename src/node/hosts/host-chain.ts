import { createSecureContext } from 'node:tls';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { posix } from 'node:path';

import { RefusalError, type HostSettings, type HostsToml } from './hosts-toml.ts';

/** One URL that Salvor asks in place of containerd, with what is known of it. */
export interface ChainEndpoint {
  /** Its path stands in place of /v2. */
  readonly url: string;
  /** Whether it must be told which registry is meant. */
  readonly namespace: boolean;
  /** Stands in place of the registry, so that it gets what clients would give to that one. */
  readonly isRegistry: boolean;
  /** PEM; empty: none. */
  readonly ca: string;
  /** PEM of certificate and key. */
  readonly client: { readonly certificate: string; readonly key: string } | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** Where Salvor gets the images of a registry. */
export interface HostChain {
  readonly endpoints: readonly ChainEndpoint[];
  /** What is not quite as containerd would do it. */
  readonly notes: readonly string[];
}

export interface ChainOptions {
  /** As image names write it; undefined: of every registry, whose own hosts come last then. */
  readonly registry: string | undefined;
  /** Of the hosts.toml: paths in it are relative to this. */
  readonly directory: string;
  /** Salvor's own URL, which is no place to get images from. */
  readonly mirrorUrl: string;
}

/**
 * Makes of a hosts.toml what Salvor does in place of containerd, certificates read.
 *
 * @throws RefusalError for what Salvor cannot do in the same way
 */
export async function hostChain(file: HostsToml, options: ChainOptions): Promise<HostChain> {
  const { registry } = options;
  const endpoints: ChainEndpoint[] = [];
  const notes: string[] = [];
  for (const host of file.hosts) {
    const { url, note } = apiUrl(host, host.url ?? '');
    if (isSameListener(url, options.mirrorUrl)) continue;
    if (note !== undefined) notes.push(note);
    refuseHalfMirrors(host);
    endpoints.push(await endpointAt(url, host, options));
  }
  if (registry === undefined) {
    refuseServerOfAll(file.server);
    return { endpoints, notes };
  }
  const { url, note } = apiUrl(file.server, file.server.url ?? ownUrl(registry));
  if (note !== undefined) notes.push(note);
  endpoints.push({ ...(await endpointAt(url, file.server, options)), isRegistry: true });
  return { endpoints, notes };
}

/** Whether Salvor would do the same if nothing were said about the registry. */
export function isPlainChain({ endpoints }: HostChain, registry: string): boolean {
  const [only, ...rest] = endpoints;
  return (
    only !== undefined &&
    rest.length === 0 &&
    only.url === plainUrl(registry) &&
    only.ca === '' &&
    only.client === undefined &&
    Object.keys(only.headers).length === 0
  );
}

/** Whether a host of the file is Salvor itself, entered by hand. */
export function hasOwnHost(file: HostsToml, mirrorUrl: string): boolean {
  return file.hosts.some(({ url = '' }) => {
    const full = withScheme(url);
    return URL.canParse(full) && isSameListener(full, mirrorUrl);
  });
}

function ownUrl(registry: string): string {
  const host = registry.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const isLoopback =
    host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  if (isLoopback) {
    throw new RefusalError(
      'containerd finds out by itself whether a registry on this machine speaks https',
      'name its URL as server, such as server = "http://localhost:5000"',
    );
  }
  return plainUrl(registry);
}

function plainUrl(registry: string): string {
  return registry === 'docker.io' ? 'https://registry-1.docker.io' : `https://${registry}`;
}

function withScheme(text: string): string {
  return text.startsWith('http') ? text : `https://${text}`;
}

/** The URL with the root of the API as its path; /v2 is left out, being the rule. */
function apiUrl(host: HostSettings, text: string): { url: string; note?: string } {
  const full = withScheme(text);
  const url = URL.canParse(full) ? new URL(full) : undefined;
  const isForeign = text.includes('://') && !/^https?:\/\//.test(text);
  if (url === undefined || isForeign || !['http:', 'https:'].includes(url.protocol)) {
    throw new RefusalError(`${text} is not an http or https URL`, 'correct it');
  }
  if (url.username !== '' || url.search !== '' || url.hash !== '') {
    throw new RefusalError(
      `the URL of ${url.host} has a user, a query or a fragment, which containerd leaves out`,
      'remove it',
    );
  }
  const hasPath = /^https?:\/\/[^/]*\//.test(full);
  let path = hasPath ? posix.normalize(url.pathname).replace(/\/$/, '') : '';
  if (hasPath ? !path.endsWith('/v2') && !host.overridesPath : !host.overridesPath) path += '/v2';
  if (path === '') {
    throw new RefusalError(
      `${text} has its API at the root of the host, not below /v2`,
      'give override_path a path',
    );
  }
  const isTls = host.ca.length > 0 || host.client.length > 0;
  if (url.protocol === 'http:' && isTls) {
    throw new RefusalError(`${text} is http but has certificates`, 'make it https, or remove them');
  }
  if (url.protocol === 'https:' && host.skipVerify) {
    throw new RefusalError(
      `${text} is not verified (skip_verify)`,
      'name its authority as ca in place of skip_verify',
    );
  }
  const note = host.skipVerify ? `${text} is asked by http alone, skip_verify or not` : undefined;
  return {
    url: path === '/v2' ? url.origin : `${url.origin}${path}`,
    ...(note === undefined ? {} : { note }),
  };
}

/** A mirror that knows no tags would be asked for them by Salvor. */
function refuseHalfMirrors({ url, capabilities }: HostSettings): void {
  if (capabilities === undefined) return;
  if (capabilities.includes('pull') && capabilities.includes('resolve')) return;
  throw new RefusalError(
    `${url} has only the capabilities ${capabilities.join(', ')}`,
    'give it "pull" and "resolve" if it may answer tags',
  );
}

function refuseServerOfAll(server: HostSettings): void {
  const isBare =
    server.ca.length === 0 &&
    server.client.length === 0 &&
    Object.keys(server.headers).length === 0;
  if (server.url === undefined && isBare && !server.skipVerify) return;
  throw new RefusalError(
    'it redirects every registry to one server, or has certificates or headers for all of them',
    'make it a [host."URL"]',
  );
}

async function endpointAt(
  url: string,
  host: HostSettings,
  options: ChainOptions,
): Promise<ChainEndpoint> {
  const { registry, directory } = options;
  const read = async (path: string): Promise<string> => {
    const full = resolve(directory, path);
    return readFile(full, 'utf8').catch(() => {
      throw new RefusalError(`${full} cannot be read`, 'containerd cannot use this host either');
    });
  };
  const authorities = await Promise.all(host.ca.map(read));
  for (const [index, pem] of authorities.entries()) {
    if (pem.includes('-----BEGIN CERTIFICATE-----')) continue;
    throw new RefusalError(`${host.ca[index]} holds no certificate in PEM`, 'correct it');
  }
  const [pair, ...others] = host.client;
  if (others.length > 0) {
    throw new RefusalError(`${url} has several client certificates`, 'keep one of them');
  }
  const own = registry === undefined ? undefined : new URL(plainUrl(registry)).host;
  return {
    url,
    namespace: own !== new URL(url).host,
    isRegistry: false,
    ca: authorities.map((pem) => (pem.endsWith('\n') ? pem : `${pem}\n`)).join(''),
    client: pair === undefined ? undefined : await clientOf(pair, read),
    headers: host.headers,
  };
}

async function clientOf(
  [certificatePath, keyPath]: readonly [string, string],
  read: (path: string) => Promise<string>,
): Promise<{ certificate: string; key: string }> {
  const [certificate, key] = [await read(certificatePath), await read(keyPath)];
  try {
    createSecureContext({ cert: certificate, key });
  } catch {
    throw new RefusalError(`${certificatePath} and ${keyPath} are no pair in PEM`, 'correct them');
  }
  return { certificate, key };
}

function isSameListener(url: string, mirrorUrl: string): boolean {
  const [a, b] = [new URL(url), new URL(mirrorUrl)];
  const isHere = ({ hostname }: URL): boolean =>
    ['localhost', '[::1]'].includes(hostname) || hostname.startsWith('127.');
  return a.port === b.port && (a.hostname === b.hostname || (isHere(a) && isHere(b)));
}
