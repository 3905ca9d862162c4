import type { Result } from './result.ts';

/** Positions of the first and the last byte, both included. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** A range as it is asked for, before the size is known. */
export type ByteRangeSpec =
  { readonly start: number; readonly end?: number } | { readonly suffix: number };

/** A range as a server gives it, with the size of the whole where the server knows it. */
export interface ContentRange extends ByteRange {
  readonly sizeBytes?: number;
}

const MAX_HEADER_CHARS = 256;
const SINGLE_RANGE_PATTERN = /^bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*$/i;
const CONTENT_RANGE_PATTERN = /^bytes ([0-9]+)-([0-9]+)\/([0-9]+|\*)$/i;

/**
 * Reads a Range header by RFC 9110 §14.2. "none" means that the header is to be ignored and the
 * whole content served: it is absent, in another unit, malformed, or asks for several ranges.
 * An inverted range and an empty suffix can be met by no content and are "unsatisfiable".
 */
export function parseByteRange(
  header: string | undefined,
):
  | { readonly kind: 'none' }
  | { readonly kind: 'range'; readonly spec: ByteRangeSpec }
  | { readonly kind: 'unsatisfiable' } {
  if (header === undefined || header.length > MAX_HEADER_CHARS) {
    return { kind: 'none' };
  }
  const match = SINGLE_RANGE_PATTERN.exec(header.trim());
  const [, first = '', last = ''] = match ?? [];
  if (first === '' && last === '') {
    return { kind: 'none' };
  }
  if (first === '') {
    const suffix = toPosition(last);
    return suffix === 0 ? { kind: 'unsatisfiable' } : { kind: 'range', spec: { suffix } };
  }
  const start = toPosition(first);
  if (last === '') {
    return { kind: 'range', spec: { start } };
  }
  const end = toPosition(last);
  return start > end ? { kind: 'unsatisfiable' } : { kind: 'range', spec: { start, end } };
}

/**
 * Applies a range to content of a known size; an end beyond it is cut.
 *
 * @returns undefined when the content has no byte in the range (an answer of 416)
 */
export function resolveByteRange(spec: ByteRangeSpec, sizeBytes: number): ByteRange | undefined {
  if ('suffix' in spec) {
    return spec.suffix === 0 || sizeBytes === 0
      ? undefined
      : { start: Math.max(0, sizeBytes - spec.suffix), end: sizeBytes - 1 };
  }
  const end = Math.min(spec.end ?? sizeBytes - 1, sizeBytes - 1);
  return spec.start > end ? undefined : { start: spec.start, end };
}

/**
 * The Range header that asks for the bytes from `start` to `end`, or to the end of the content.
 *
 * @throws RangeError when the positions are no range
 */
export function formatRangeHeader(start: number, end?: number): string {
  assertRange(start, end ?? start);
  return `bytes=${start}-${end ?? ''}`;
}

/** Reads the Content-Range header of a 206 answer, RFC 9110 §14.4. */
export function parseContentRange(header: string | undefined): Result<ContentRange> {
  if (header === undefined) {
    return { ok: false, reason: 'no Content-Range' };
  }
  const match = header.length > MAX_HEADER_CHARS ? null : CONTENT_RANGE_PATTERN.exec(header.trim());
  const [, first, last, size] = match ?? [];
  if (first === undefined || last === undefined || size === undefined) {
    return { ok: false, reason: 'not a Content-Range in bytes' };
  }
  const start = Number(first);
  const end = Number(last);
  const sizeBytes = size === '*' ? undefined : Number(size);
  // Only below this bound are neighbouring positions told apart.
  const isExact = [end, sizeBytes ?? 0].every((position) => Number.isSafeInteger(position));
  if (!isExact || start > end || (sizeBytes !== undefined && end >= sizeBytes)) {
    return { ok: false, reason: 'a Content-Range that contradicts itself' };
  }
  return { ok: true, value: { start, end, ...(sizeBytes === undefined ? {} : { sizeBytes }) } };
}

/**
 * The Content-Range header of a 206 answer.
 *
 * @throws RangeError when the range does not lie inside the content
 */
export function formatContentRange(range: ByteRange, sizeBytes: number): string {
  assertRange(range.start, range.end);
  if (!Number.isSafeInteger(sizeBytes) || range.end >= sizeBytes) {
    throw new RangeError(`Cannot write a range to ${range.end}: the size is ${sizeBytes}`);
  }
  return `bytes ${range.start}-${range.end}/${sizeBytes}`;
}

/** The Content-Range header of a 416 answer. */
export function formatUnsatisfiedContentRange(sizeBytes: number): string {
  return `bytes */${sizeBytes}`;
}

function toPosition(digits: string): number {
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
}

function assertRange(start: number, end: number): void {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start) {
    throw new RangeError(`Cannot write a range: ${start} to ${end} is none`);
  }
}
