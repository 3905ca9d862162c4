import { parseDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import type { OciErrorCode } from './error-body.ts';
import {
  looksLikeRegistryHost,
  normalizeRegistry,
  normalizeRepository,
  parseRegistryHost,
  parseRepository,
  parseTag,
} from './name.ts';
import type { Result } from './result.ts';

export type ManifestReference =
  | { readonly tag: string; readonly digest?: undefined }
  | { readonly digest: Digest; readonly tag?: undefined };

/** What a path under /v2 asks for. */
export type V2Target =
  | { readonly kind: 'base' }
  | {
      readonly kind: 'manifest';
      readonly repository: string;
      readonly reference: ManifestReference;
    }
  | { readonly kind: 'blob'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'referrers'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'tags'; readonly repository: string }
  | { readonly kind: 'upload'; readonly repository: string }
  | { readonly kind: 'catalog' };

export interface V2Request {
  readonly target: V2Target;
  /** The `ns` parameter: the registry that the client means, normalised. */
  readonly ns?: string;
  /** The registry that stood in the path instead, normalised. Never together with `ns`. */
  readonly registry?: string;
}

/** Why a request target cannot be served, ready to be answered. */
export interface V2Refusal {
  readonly ok: false;
  readonly status: 400 | 404;
  readonly code: OciErrorCode;
  readonly message: string;
}

const MAX_URL_CHARS = 16 * 1024;
const MAX_PATH_CHARS = 4 * 1024;
// Slashes, backslashes and percent signs may not come out of the decoding: no later reader may
// see a different path than this one did.
const FORBIDDEN_IN_SEGMENT = /[/\\%\p{Cc}]/u;

/**
 * Reads the raw target of a request to the OCI Distribution API, "/v2/…?ns=…", before anybody has
 * decoded it. Percent-encoding is undone exactly once for each segment.
 *
 * Without `ns`, a first segment that looks like a host (and is not the whole name) is taken for
 * the registry. With `ns`, the path is taken as it stands.
 */
export function parseV2Url(
  rawUrl: string,
): { readonly ok: true; readonly value: V2Request } | V2Refusal {
  const mark = rawUrl.indexOf('?');
  const path = mark === -1 ? rawUrl : rawUrl.slice(0, mark);
  if (rawUrl.length > MAX_URL_CHARS || path.length > MAX_PATH_CHARS) {
    return refuse(400, 'NAME_INVALID', 'Cannot read the URL: it is too long');
  }
  if (path !== '/v2' && !path.startsWith('/v2/')) {
    return unknownRoute();
  }
  const ns = parseNamespace(mark === -1 ? '' : rawUrl.slice(mark + 1));
  if (!ns.ok) {
    return refuse(400, 'NAME_INVALID', `Cannot read the ns parameter: ${ns.reason}`);
  }
  const segments = decodeSegments(path.slice('/v2/'.length));
  if (!segments.ok) {
    return refuse(400, 'NAME_INVALID', `Cannot read the path: ${segments.reason}`);
  }
  const route = matchRoute(segments.value);
  if (route === undefined) {
    return unknownRoute();
  }
  const namespace = ns.value === undefined ? {} : { ns: ns.value };
  if (route.name === undefined) {
    return { ok: true, value: { target: { kind: route.kind }, ...namespace } };
  }
  const place = parsePlace(route.name, ns.value !== undefined);
  if (!place.ok) {
    return refuse(400, 'NAME_INVALID', `Cannot read the name: ${place.reason}`);
  }
  const { registry, repository } = place.value;
  const target = toTarget(route, repository);
  return target.ok
    ? {
        ok: true,
        value: {
          target: target.value,
          ...namespace,
          ...(registry === undefined ? {} : { registry }),
        },
      }
    : target;
}

type NamedRoute =
  | {
      readonly kind: 'tags' | 'upload';
      readonly name: readonly string[];
      readonly reference?: undefined;
    }
  | {
      readonly kind: 'manifest' | 'blob' | 'referrers';
      readonly name: readonly string[];
      readonly reference: string;
    };

type Route = { readonly kind: 'base' | 'catalog'; readonly name?: undefined } | NamedRoute;

function refuse(status: 400 | 404, code: OciErrorCode, message: string): V2Refusal {
  return { ok: false, status, code, message };
}

function unknownRoute(): V2Refusal {
  return refuse(404, 'UNSUPPORTED', 'Cannot serve the path: no such endpoint');
}

function decodeOnce(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

function parseNamespace(query: string): Result<string | undefined> {
  let found: string | undefined;
  for (const pair of query.split('&')) {
    const equals = pair.indexOf('=');
    const key = equals === -1 ? pair : pair.slice(0, equals);
    if (decodeOnce(key) !== 'ns') {
      continue;
    }
    if (found !== undefined) {
      return { ok: false, reason: 'it is given more than once' };
    }
    found = equals === -1 ? '' : pair.slice(equals + 1);
  }
  if (found === undefined) {
    return { ok: true, value: undefined };
  }
  const decoded = decodeOnce(found);
  if (decoded === undefined) {
    return { ok: false, reason: 'invalid percent-encoding' };
  }
  const host = parseRegistryHost(decoded);
  return host.ok ? { ok: true, value: normalizeRegistry(host.value) } : host;
}

function decodeSegments(path: string): Result<string[]> {
  const segments: string[] = [];
  for (const raw of path.split('/')) {
    const segment = decodeOnce(raw);
    if (segment === undefined) {
      return { ok: false, reason: 'invalid percent-encoding' };
    }
    if (segment === '.' || segment === '..' || FORBIDDEN_IN_SEGMENT.test(segment)) {
      return { ok: false, reason: 'a segment that no name can have' };
    }
    segments.push(segment);
  }
  return { ok: true, value: segments };
}

/** Reads from the end, because a repository may itself be called "a/manifests/b". */
function matchRoute(segments: readonly string[]): Route | undefined {
  const last = segments.at(-1) ?? '';
  if (segments.length === 1 && (last === '' || last === '_catalog')) {
    return { kind: last === '' ? 'base' : 'catalog' };
  }
  const name = segments.slice(0, -2);
  switch (segments.at(-2) ?? '') {
    case 'manifests':
      return { kind: 'manifest', name, reference: last };
    case 'blobs':
      return last === 'uploads'
        ? { kind: 'upload', name }
        : { kind: 'blob', name, reference: last };
    case 'referrers':
      return { kind: 'referrers', name, reference: last };
    case 'tags':
      return last === 'list' ? { kind: 'tags', name } : undefined;
    case 'uploads':
      // Both "blobs/uploads/", where an upload begins, and "blobs/uploads/<id>".
      return segments.at(-3) === 'blobs'
        ? { kind: 'upload', name: segments.slice(0, -3) }
        : undefined;
    default:
      return undefined;
  }
}

function parsePlace(
  name: readonly string[],
  hasNamespace: boolean,
): Result<{ registry?: string; repository: string }> {
  const [first = '', ...others] = name;
  if (hasNamespace || others.length === 0 || !looksLikeRegistryHost(first)) {
    const repository = parseRepository(name.join('/'));
    return repository.ok ? { ok: true, value: { repository: repository.value } } : repository;
  }
  const host = parseRegistryHost(first);
  if (!host.ok) {
    return host;
  }
  const repository = parseRepository(others.join('/'));
  if (!repository.ok) {
    return repository;
  }
  const registry = normalizeRegistry(host.value);
  const full = parseRepository(normalizeRepository(registry, repository.value));
  return full.ok ? { ok: true, value: { registry, repository: full.value } } : full;
}

function toTarget(
  route: NamedRoute,
  repository: string,
): { readonly ok: true; readonly value: V2Target } | V2Refusal {
  if (route.reference === undefined) {
    return { ok: true, value: { kind: route.kind, repository } };
  }
  if (route.kind === 'manifest' && !route.reference.includes(':')) {
    const tag = parseTag(route.reference);
    return tag.ok
      ? { ok: true, value: { kind: 'manifest', repository, reference: { tag: tag.value } } }
      : refuse(404, 'MANIFEST_UNKNOWN', `Cannot find the manifest: ${tag.reason}`);
  }
  const digest = parseDigest(route.reference);
  if (!digest.ok) {
    return refuse(400, 'DIGEST_INVALID', `Cannot read the digest: ${digest.reason}`);
  }
  return route.kind === 'manifest'
    ? { ok: true, value: { kind: 'manifest', repository, reference: { digest: digest.value } } }
    : { ok: true, value: { kind: route.kind, repository, digest: digest.value } };
}
