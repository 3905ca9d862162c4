import { parseDigest, digestOf, digestAlgorithm, type Digest } from '../../oci/digest.ts';
import { isJsonObject } from '../../oci/descriptor.ts';
import { parseManifest } from '../../oci/manifest.ts';
import {
  MANIFEST_ACCEPT,
  isManifestMediaType,
  isSchema1MediaType,
  mediaTypeEssence,
} from '../../oci/media-type.ts';
import type { ManifestReference } from '../../oci/path.ts';
import type { ByteBudget } from '../byte-budget.ts';
import { readWhole } from '../read-whole.ts';
import { SourceError } from '../sources/source.ts';
import {
  contentLengthOf,
  dateOf,
  discard,
  encodingOf,
  headerOf,
  refusalOf,
  type Refusal,
} from './upstream-answer.ts';
import type { UpstreamResponse } from './upstream-client.ts';
import type { Upstream } from './upstream.ts';

/** A manifest as an upstream gave it: described by HEAD, in full by GET. */
export interface UpstreamManifest {
  readonly kind: 'manifest';
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** When the upstream said so, by its own clock, milliseconds since the epoch. */
  readonly confirmedAtMs: number;
  readonly bytes?: Buffer;
}

/** What an upstream says to a request for a manifest. */
export type UpstreamManifestAnswer =
  UpstreamManifest | { readonly kind: 'missing' | 'refused'; readonly refusal: Refusal };

export interface ManifestQuestion {
  readonly method: 'GET' | 'HEAD';
  readonly repository: string;
  readonly reference: ManifestReference;
  readonly headers: Readonly<Record<string, string>>;
}

export interface ManifestAskOptions {
  readonly maxBytes: number;
  readonly stallMs: number;
  /** Pays for the bytes of an answer while they come in. */
  readonly budget: Pick<ByteBudget, 'open'>;
  readonly signal: AbortSignal;
  readonly onTrouble?: () => void;
}

/**
 * Asks an upstream for a manifest, distribution-spec "Pulling manifests". HEAD stays HEAD, unless
 * the answer lacks what a client needs; then the manifest itself is fetched and described.
 *
 * @throws UpstreamFailure, and SourceError when the answer contradicts itself;
 *   BusyError when there is no memory for it
 */
export async function askForManifest(
  upstream: Pick<Upstream, 'name' | 'ask'>,
  question: ManifestQuestion,
  options: ManifestAskOptions,
): Promise<UpstreamManifestAnswer> {
  const { method, repository, reference } = question;
  const path = `/v2/${repository}/manifests/${reference.digest ?? reference.tag}`;
  const headers = { accept: MANIFEST_ACCEPT, ...question.headers };
  const response = await upstream.ask({ method, path, headers }, options);
  if (response.status === 404 || response.status === 410) {
    return { kind: 'missing', refusal: await refusalOf(response) };
  }
  if (response.status === 206) {
    discard(response);
    throw new SourceError('bad_answer', 'The upstream sends a part of the manifest, unasked');
  }
  if (response.status !== 200) return { kind: 'refused', refusal: await refusalOf(response) };
  if (method === 'GET') return readManifest(response, reference, options);
  discard(response);
  return (
    describeByHeaders(response, reference) ??
    (await askForManifest(upstream, { ...question, method: 'GET' }, options))
  );
}

function describeByHeaders(
  response: UpstreamResponse,
  reference: ManifestReference,
): UpstreamManifest | undefined {
  const sizeBytes = contentLengthOf(response);
  const mediaType = mediaTypeEssence(headerOf(response, 'content-type'));
  const digest = parseDigest(headerOf(response, 'docker-content-digest') ?? '');
  const named = reference.digest ?? (digest.ok ? digest.value : undefined);
  if (named === undefined || mediaType === undefined || !sizeBytes) return undefined;
  if (encodingOf(response) !== undefined) return undefined;
  // A portal answers 200 to everything; what it is shows only in the document.
  if (!isManifestMediaType(mediaType)) return undefined;
  const confirmedAtMs = dateOf(response, Date.now());
  return { kind: 'manifest', digest: named, mediaType, sizeBytes, confirmedAtMs };
}

async function readManifest(
  response: UpstreamResponse,
  reference: ManifestReference,
  options: ManifestAskOptions,
): Promise<UpstreamManifest> {
  const encoding = encodingOf(response);
  if (encoding !== undefined) {
    discard(response);
    throw new SourceError('bad_answer', `The upstream encodes the manifest (${encoding}), unasked`);
  }
  const bytes = await readBody(response, options);
  const said = parseDigest(headerOf(response, 'docker-content-digest') ?? '');
  const expected = reference.digest ?? (said.ok ? said.value : undefined);
  const digest =
    expected === undefined ? digestOf(bytes) : digestOf(bytes, digestAlgorithm(expected));
  if (expected !== undefined && digest !== expected) {
    throw new SourceError('wrong_bytes', `The upstream sent ${digest} for ${expected}`);
  }
  const named = mediaTypeEssence(headerOf(response, 'content-type'));
  const mediaType = typeOf(bytes, named, {
    isVouchedFor: expected !== undefined,
    reference,
  });
  const confirmedAtMs = dateOf(response, Date.now());
  const sizeBytes = bytes.length;
  return { kind: 'manifest', digest, mediaType, sizeBytes, confirmedAtMs, bytes };
}

/**
 * The type that the header names if the document agrees, else what the document is.
 *
 * @param options.isVouchedFor whether the bytes have the digest that was asked for or announced:
 *   where nobody has said one, a document that was cut off looks like any other
 */
function typeOf(
  bytes: Buffer,
  named: string | undefined,
  options: { readonly isVouchedFor: boolean; readonly reference: ManifestReference },
): string {
  if (named !== undefined && isManifestMediaType(named) && parseManifest(bytes, named).ok) {
    return named;
  }
  const own = parseManifest(bytes);
  if (own.ok) return own.value.mediaType;
  // What has the digest that was asked for is what was asked for, whatever it is.
  const isMeant = options.reference.digest !== undefined || isManifestMediaType(named);
  const isWhole = options.isVouchedFor || (isSchema1MediaType(named) && isWholeJson(bytes));
  if (named !== undefined && isMeant && isWhole) return named;
  throw new SourceError(
    'bad_answer',
    isMeant
      ? `The upstream sent no manifest, or not all of it, as ${named}`
      : `The upstream sent ${named ?? 'something'}, no manifest`,
  );
}

function isWholeJson(bytes: Buffer): boolean {
  try {
    return isJsonObject(JSON.parse(bytes.toString('utf8')));
  } catch {
    return false;
  }
}

async function readBody(
  response: UpstreamResponse,
  options: Pick<ManifestAskOptions, 'maxBytes' | 'stallMs' | 'budget'>,
): Promise<Buffer> {
  const body = {
    source: 'upstream',
    chunks: response.body as AsyncIterable<Buffer>,
    cancel: () => discard(response),
  };
  const bytes = await readWhole(body, options);
  const declared = contentLengthOf(response);
  if (declared !== undefined && declared !== bytes.length) {
    throw new SourceError('cut', `The upstream sent ${bytes.length} of ${declared} bytes`);
  }
  return bytes;
}
