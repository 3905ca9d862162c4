import type { Result } from './result.ts';

const MAX_REPOSITORY_CHARS = 255;
const MAX_TAG_CHARS = 128;
const MAX_HOST_CHARS = 253;
const MAX_IPV6_CHARS = '[]'.length + 45;

// Separators and letters never overlap, so neither pattern can backtrack.
const REPOSITORY_COMPONENT = '[a-z0-9]+(?:(?:\\.|__|_|-+)[a-z0-9]+)*';
const REPOSITORY_PATTERN = new RegExp(`^${REPOSITORY_COMPONENT}(?:/${REPOSITORY_COMPONENT})*$`);
const TAG_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
const LABEL_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const NUMERIC_LABEL_PATTERN = /^(?:[0-9]+|0x[0-9a-f]*)$/;
const OCTET_PATTERN = /^(?:0|[1-9][0-9]{0,2})$/;
const PORT_PATTERN = /^[1-9][0-9]{0,4}$/;
const HOST_CHARACTERS = /^[A-Za-z0-9.:[\]-]+$/;
const IPV6_PATTERN = /^\[[0-9a-f:.]+\]$/;

const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_ALIASES: ReadonlySet<string> = new Set([
  'index.docker.io',
  'registry-1.docker.io',
  'registry.hub.docker.com',
]);

/** Reads a repository name by the grammar of the OCI distribution specification, 255 characters. */
export function parseRepository(text: string): Result<string> {
  if (text.length > MAX_REPOSITORY_CHARS) {
    return {
      ok: false,
      reason: `a repository name has at most ${MAX_REPOSITORY_CHARS} characters`,
    };
  }
  if (!REPOSITORY_PATTERN.test(text)) {
    return { ok: false, reason: 'not a repository name' };
  }
  return { ok: true, value: text };
}

/** Reads a tag by the grammar of the OCI distribution specification, 128 characters. */
export function parseTag(text: string): Result<string> {
  if (text.length > MAX_TAG_CHARS) {
    return { ok: false, reason: `a tag has at most ${MAX_TAG_CHARS} characters` };
  }
  if (!TAG_PATTERN.test(text)) {
    return { ok: false, reason: 'not a tag' };
  }
  return { ok: true, value: text };
}

/**
 * Reads "host" or "host:port", where the host is a DNS name, a dotted IPv4 address or an IPv6
 * address in brackets; no scheme, user or path. Addresses in disguise (octal, hexadecimal, fewer
 * than four numbers) are refused, so that what is compared with a policy is what gets dialled.
 *
 * @returns the host in lowercase, an IPv6 address in its shortest form, the port as it was given
 */
export function parseRegistryHost(text: string): Result<string> {
  if (text.length > MAX_HOST_CHARS + ':65535'.length) {
    return { ok: false, reason: 'the registry host is too long' };
  }
  // Some letters outside ASCII turn into ASCII ones in lowercase (the Kelvin sign into "k").
  if (!HOST_CHARACTERS.test(text)) {
    return { ok: false, reason: 'not a registry host' };
  }
  const lower = text.toLowerCase();
  const hostEnd = lower.startsWith('[') ? lower.indexOf(']') + 1 : lower.indexOf(':');
  const host = hostEnd > 0 ? lower.slice(0, hostEnd) : lower;
  const rest = lower.slice(host.length);

  const canonicalHost = host.startsWith('[') ? canonicalIpv6(host) : canonicalName(host);
  if (canonicalHost === undefined) {
    return { ok: false, reason: 'not a registry host' };
  }
  if (rest === '') {
    return { ok: true, value: canonicalHost };
  }
  const port = rest.slice(1);
  if (!rest.startsWith(':') || !PORT_PATTERN.test(port) || Number(port) > 65_535) {
    return { ok: false, reason: 'not a port between 1 and 65535' };
  }
  return { ok: true, value: `${canonicalHost}:${port}` };
}

/** Whether the first segment of a path means a registry rather than a part of a repository. */
export function looksLikeRegistryHost(segment: string): boolean {
  return segment === 'localhost' || segment.includes('.') || segment.includes(':');
}

/** One name for each registry: the other host names of Docker Hub become "docker.io". */
export function normalizeRegistry(host: string): string {
  const lower = host.toLowerCase();
  return DOCKER_HUB_ALIASES.has(lower) ? DOCKER_HUB : lower;
}

/**
 * The repository under its full name: on Docker Hub, "nginx" is "library/nginx".
 *
 * @param registry normalised
 */
export function normalizeRepository(registry: string, repository: string): string {
  return registry === DOCKER_HUB && !repository.includes('/')
    ? `library/${repository}`
    : repository;
}

function canonicalName(host: string): string | undefined {
  const labels = host.split('.');
  if (host.length > MAX_HOST_CHARS || !labels.every((label) => LABEL_PATTERN.test(label))) {
    return undefined;
  }
  // The URL standard takes every host that ends in a number for an IPv4 address.
  if (NUMERIC_LABEL_PATTERN.test(labels.at(-1) ?? '')) {
    const isIpv4 =
      labels.length === 4 &&
      labels.every((label) => OCTET_PATTERN.test(label) && Number(label) <= 255);
    return isIpv4 ? host : undefined;
  }
  return host;
}

function canonicalIpv6(bracketed: string): string | undefined {
  if (bracketed.length > MAX_IPV6_CHARS || !IPV6_PATTERN.test(bracketed)) {
    return undefined;
  }
  return URL.parse(`http://${bracketed}/`)?.hostname;
}
