import { parseDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import {
  looksLikeRegistryHost,
  normalizeRegistry,
  normalizeRepository,
  parseRegistryHost,
  parseRepository,
  parseTag,
} from './name.ts';
import type { Result } from './result.ts';

/** A full image reference: nothing is implied any more. At least one of tag and digest is there. */
export interface Reference {
  /** Host with optional port, normalised: "docker.io", "localhost:5000". */
  readonly registry: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

const MAX_REFERENCE_CHARS = 1024;
const DEFAULT_REGISTRY = 'docker.io';
const DEFAULT_TAG = 'latest';
const IMAGE_ID_PATTERN = /^[0-9a-f]{64}$/;

/**
 * Reads an image reference as people and Pods write it ("nginx", "quay.io/a/b:1@sha256:…") and
 * fills in what is implied, as Docker and containerd do. The tag "latest" is implied only when
 * there is no digest.
 *
 * A bare digest and a bare image id are refused: they name no repository.
 */
export function parseReference(text: string): Result<Reference> {
  if (text.length > MAX_REFERENCE_CHARS) {
    return { ok: false, reason: `a reference has at most ${MAX_REFERENCE_CHARS} characters` };
  }
  if (IMAGE_ID_PATTERN.test(text) || parseDigest(text).ok) {
    return { ok: false, reason: 'a digest alone names no repository' };
  }
  const { name, tag, digest } = splitReference(text);

  const parsedDigest = digest === undefined ? undefined : parseDigest(digest);
  if (parsedDigest?.ok === false) {
    return parsedDigest;
  }
  const parsedTag = tag === undefined ? undefined : parseTag(tag);
  if (parsedTag?.ok === false) {
    return parsedTag;
  }
  const place = parsePlace(name);
  if (!place.ok) {
    return place;
  }
  const impliedTag = parsedDigest === undefined ? DEFAULT_TAG : undefined;
  const finalTag = parsedTag?.value ?? impliedTag;
  return {
    ok: true,
    value: {
      ...place.value,
      ...(finalTag === undefined ? {} : { tag: finalTag }),
      ...(parsedDigest === undefined ? {} : { digest: parsedDigest.value }),
    },
  };
}

/** Writes a reference in full; {@link parseReference} reads it back unchanged. */
export function formatReference(reference: Reference): string {
  const { registry, repository, tag, digest } = reference;
  const tagPart = tag === undefined ? '' : `:${tag}`;
  const digestPart = digest === undefined ? '' : `@${digest}`;
  return `${registry}/${repository}${tagPart}${digestPart}`;
}

/** The key under which a tag is looked up on every node: "registry/repository:tag". */
export function tagName(registry: string, repository: string, tag: string): string {
  return `${registry}/${repository}:${tag}`;
}

interface ReferenceParts {
  readonly name: string;
  readonly tag?: string;
  readonly digest?: string;
}

function splitReference(text: string): ReferenceParts {
  const at = text.indexOf('@');
  const digest = at === -1 ? {} : { digest: text.slice(at + 1) };
  const named = at === -1 ? text : text.slice(0, at);
  // A colon before the last slash belongs to a port.
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  return colon === -1
    ? { name: named, ...digest }
    : { name: named.slice(0, colon), tag: named.slice(colon + 1), ...digest };
}

function parsePlace(name: string): Result<{ registry: string; repository: string }> {
  const slash = name.indexOf('/');
  const first = slash === -1 ? '' : name.slice(0, slash);
  const hasHost = looksLikeRegistryHost(first);

  const host = parseRegistryHost(hasHost ? first : DEFAULT_REGISTRY);
  if (!host.ok) {
    return host;
  }
  const repository = parseRepository(hasHost ? name.slice(slash + 1) : name);
  if (!repository.ok) {
    return repository;
  }
  const registry = normalizeRegistry(host.value);
  // The implied "library/" counts towards the limit as well.
  const full = parseRepository(normalizeRepository(registry, repository.value));
  return full.ok ? { ok: true, value: { registry, repository: full.value } } : full;
}
