import { formatRangeHeader, parseContentRange } from '../../oci/byte-range.ts';
import type { Digest } from '../../oci/digest.ts';
import { upstreamHeaders, type PullRequest } from '../pull-request.ts';
import { SourceError, type OpenedBody, type Wanted } from '../sources/source.ts';
import {
  contentLengthOf,
  discard,
  encodingOf,
  headerOf,
  refusalOf,
  type Refusal,
} from './upstream-answer.ts';
import type { UpstreamResponse } from './upstream-client.ts';

/** What an upstream says to a request for a blob. */
export type UpstreamBlob =
  | { readonly kind: 'body'; readonly body: OpenedBody }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'missing'; readonly refusal: Refusal }
  | { readonly kind: 'unsatisfiable' };

/** The path of a blob on a registry, distribution-spec "Pulling blobs". */
export function blobPath(repository: string, digest: Digest): string {
  return `/v2/${repository}/blobs/${digest}`;
}

/** The headers for a blob, or a part of it. */
export function blobHeaders(request: PullRequest, wanted: Wanted): Record<string, string> {
  return upstreamHeaders(request, { range: rangeOf(wanted) });
}

/**
 * Makes sense of the answer. A registry may ignore a range and send all.
 *
 * @throws SourceError when the answer contradicts itself or the question
 */
export async function readBlobResponse(
  response: UpstreamResponse,
  wanted: Wanted,
): Promise<UpstreamBlob> {
  if (response.status === 416) {
    discard(response);
    return { kind: 'unsatisfiable' };
  }
  if (response.status === 404 || response.status === 410) {
    return { kind: 'missing', refusal: await refusalOf(response) };
  }
  if (response.status !== 200 && response.status !== 206) {
    return { kind: 'refused', refusal: await refusalOf(response) };
  }
  const encoding = encodingOf(response);
  try {
    if (encoding !== undefined) throw bad(`encodes the blob (${encoding})`);
    return { kind: 'body', body: bodyOf(response, wanted) };
  } catch (error) {
    discard(response);
    throw error;
  }
}

function bodyOf(response: UpstreamResponse, wanted: Wanted): OpenedBody {
  const { sizeBytes, start, end } =
    response.status === 206 ? partOf(response, wanted) : wholeOf(response);
  return {
    source: 'upstream',
    origin: response.host,
    ...(response.endpoint === undefined ? {} : { endpoint: response.endpoint }),
    sizeBytes,
    stretch: { start, end },
    trusted: true,
    chunks: response.body as AsyncIterable<Buffer>,
    cancel: () => discard(response),
  };
}

function wholeOf(response: UpstreamResponse): { sizeBytes: number; start: number; end: number } {
  const sizeBytes = contentLengthOf(response);
  if (sizeBytes === undefined) throw bad('does not say how long the blob is');
  return { sizeBytes, start: 0, end: sizeBytes - 1 };
}

function partOf(
  response: UpstreamResponse,
  wanted: Wanted,
): { sizeBytes: number; start: number; end: number } {
  const range = parseContentRange(headerOf(response, 'content-range') ?? '');
  if (!range.ok) throw bad(`sends a part of the blob and does not say which: ${range.reason}`);
  const { start, end, sizeBytes } = range.value;
  if (sizeBytes === undefined) throw bad('sends a part of the blob and does not say of how much');
  if ('start' in wanted && start !== wanted.start) {
    throw bad(`was asked for byte ${wanted.start} and starts at ${start}`);
  }
  const length = contentLengthOf(response);
  if (length !== undefined && length !== end - start + 1) throw bad('contradicts its own range');
  return { sizeBytes, start, end };
}

function rangeOf(wanted: Wanted): string | undefined {
  if ('suffix' in wanted) return `bytes=-${wanted.suffix}`;
  if (wanted.start === 0 && wanted.end === undefined) return undefined;
  return formatRangeHeader(wanted.start, wanted.end);
}

function bad(what: string): SourceError {
  return new SourceError('bad_answer', `The upstream ${what}`);
}
