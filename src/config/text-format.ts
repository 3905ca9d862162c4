import { isIP } from 'node:net';

/** Kinds of text that are checked when a configuration is loaded. */
export type TextFormat =
  | 'absolutePath'
  | 'address'
  | 'apiUrl'
  | 'cidr'
  | 'dnsName'
  | 'headerName'
  | 'headerValue'
  | 'hostPattern'
  | 'kubernetesName'
  | 'namePattern'
  | 'registryHost'
  | 'staleCause';

interface FormatRule {
  /** Ends the sentence "expected …". */
  readonly expected: string;
  readonly matches: (value: string) => boolean;
}

const hostName = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*$/i;
const digits = /^(0|[1-9]\d{0,4})$/;
const controlCharacter = /\p{Cc}/u;

/** What "host:port" and "[v6]:port" consist of. */
export interface HostAndPort {
  /** Without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * Takes "host:port" or "[address]:port" apart; the host is a name or an IP address. Brackets are
 * for IPv6 and may be around IPv4, for those who do not know which of them an address is.
 *
 * @returns undefined when it is neither, or the port is above 65535
 */
export function parseAddress(address: string): HostAndPort | undefined {
  const colon = address.lastIndexOf(':');
  const portText = address.slice(colon + 1);
  if (colon < 1 || !digits.test(portText) || Number(portText) > 65_535) {
    return undefined;
  }
  const host = address.slice(0, colon);
  const port = Number(portText);
  if (host.startsWith('[') && host.endsWith(']')) {
    const inner = host.slice(1, -1);
    return isIP(inner) === 0 ? undefined : { host: inner, port };
  }
  return isHost(host) ? { host, port } : undefined;
}

/** Whether only this machine can reach an address: 127.0.0.0/8, ::1 or localhost. */
export function isLoopback(address: string): boolean {
  const host = parseAddress(address)?.host.toLowerCase();
  if (host === undefined) {
    return false;
  }
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function isHost(host: string): boolean {
  // A name of digits and dots alone would be an IP address with a mistake in it.
  return isIP(host) === 4 || (hostName.test(host) && !/^[\d.]+$/.test(host));
}

function isRegistryHost(value: string): boolean {
  return isHost(value) || (parseAddress(value)?.port ?? 0) > 0;
}

function isHostPattern(value: string): boolean {
  return value === '*' || isRegistryHost(value.startsWith('*.') ? value.slice(2) : value);
}

function isCidr(value: string): boolean {
  const [address = '', length = '', ...rest] = value.split('/');
  const version = isIP(address);
  return (
    rest.length === 0 &&
    version !== 0 &&
    digits.test(length) &&
    Number(length) <= (version === 4 ? 32 : 128)
  );
}

function isApiUrl(value: string): boolean {
  if (!URL.canParse(value) || /[\s\\]/.test(value)) {
    return false;
  }
  const url = new URL(value);
  return (
    (url.protocol === 'http:' || url.protocol === 'https:') &&
    url.username === '' &&
    url.password === '' &&
    !url.pathname.includes('//') &&
    url.search === '' &&
    url.hash === ''
  );
}

/** Names that are the HTTP client's own, or would change what is asked for. */
const reservedHeaders: ReadonlySet<string> = new Set([
  ...['connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization'],
  ...['proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'content-length'],
  ...['expect', 'host', 'range', 'accept', 'accept-encoding', 'if-match', 'if-none-match'],
  ...['if-modified-since', 'if-unmodified-since', 'if-range'],
]);

function isHeaderName(value: string): boolean {
  return /^[\w!#$%&'*+.^`|~-]{1,256}$/.test(value) && !reservedHeaders.has(value.toLowerCase());
}

/** How each format is recognised, and how it is called in messages. */
export const textFormats: Readonly<Record<TextFormat, FormatRule>> = {
  absolutePath: {
    expected: 'an absolute path, such as /var/lib/salvor',
    matches: (value) => value.startsWith('/') && !controlCharacter.test(value),
  },
  address: {
    expected: 'an address with port, such as 127.0.0.1:7480 or [::1]:7480',
    matches: (value) => parseAddress(value) !== undefined,
  },
  apiUrl: {
    expected: 'an http or https URL without user or query, such as https://example.com:5000',
    matches: isApiUrl,
  },
  cidr: { expected: 'an address block, such as 10.0.0.0/8', matches: isCidr },
  dnsName: {
    expected: 'a DNS name, such as salvor.example.com or _peers._tcp.salvor.example.com',
    matches: (value) => hostName.test(value.replace(/\.$/, '')),
  },
  headerName: {
    expected:
      'the name of a header, other than Host, Accept, Range, conditions and those of a connection',
    matches: isHeaderName,
  },
  headerValue: {
    expected: 'printable characters of Latin-1, without a blank at either end',
    matches: (value) => /^[!-~\xa1-\xff]([\t -~\xa1-\xff]*[!-~\xa1-\xff])?$/.test(value),
  },
  hostPattern: {
    expected: 'a registry host, *, or a pattern such as *.example.com',
    matches: isHostPattern,
  },
  kubernetesName: {
    expected: 'lower case letters, digits and hyphens, such as salvor',
    matches: (value) => /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(value),
  },
  namePattern: {
    expected: 'a registry and repository, * for any part, such as docker.io/library/*',
    matches: (value) => /^[\w.*:[\]-]+(\/[\w.*-]+)*$/.test(value),
  },
  registryHost: {
    expected: 'a registry host as in image names, such as docker.io or localhost:5000',
    matches: isRegistryHost,
  },
  staleCause: {
    expected: 'unreachable, 5xx, 429 or gone',
    matches: (value) => ['unreachable', '5xx', '429', 'gone'].includes(value),
  },
};
