import { createHash } from 'node:crypto';
import type { Cell, Outcome } from './cell.ts';
import type { ClientAnswer, ClientRequest } from './client.ts';
import { manifestType } from './fault-image.ts';

/** What a right answer to a cell's request contains. */
export interface RightAnswer {
  readonly status: 200 | 206;
  /** Of what is asked for: of a range, its bytes. */
  readonly bytes: Buffer;
  /** Of the whole. */
  readonly digest: string;
  readonly mediaType: string;
  readonly contentRange: string | undefined;
}

/** A request of a cell, without its method. */
export interface CellRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly right: RightAnswer;
}

/** What a cell asks for, and what is right. */
export function requestOf(cell: Pick<Cell, 'kind' | 'registry' | 'image'>): CellRequest {
  const { image, kind, registry } = cell;
  const query = `?ns=${registry}`;
  const base = '/v2/team/app';
  if (kind === 'tag' || kind === 'digest') {
    const { digest, bytes } = image.manifest;
    const reference = kind === 'tag' ? image.tag : digest;
    return {
      path: `${base}/manifests/${reference}${query}`,
      headers: {},
      right: { status: 200, bytes, digest, mediaType: manifestType, contentRange: undefined },
    };
  }
  const { digest, bytes } = image.layer;
  const path = `${base}/blobs/${digest}${query}`;
  const mediaType = 'application/octet-stream';
  if (kind === 'blob') {
    const right = { status: 200 as const, bytes, digest, mediaType, contentRange: undefined };
    return { path, headers: {}, right };
  }
  const [start, end] = [Math.floor(bytes.length / 4), Math.floor((bytes.length * 3) / 4) - 1];
  const contentRange = `bytes ${start}-${end}/${bytes.length}`;
  return {
    path,
    headers: { range: `bytes=${start}-${end}` },
    right: { status: 206, bytes: bytes.subarray(start, end + 1), digest, mediaType, contentRange },
  };
}

/**
 * What an answer comes to. The digest is made anew from the bytes that came; nothing that the
 * other side says is taken for true.
 *
 * @param asUpstream the bytes that the faulty upstream gives, where they are wrong
 */
export function judge(
  method: ClientRequest['method'],
  answer: ClientAnswer,
  expected: { readonly right: RightAnswer; readonly asUpstream?: Buffer | undefined },
): { readonly outcome: Outcome; readonly reason?: string } {
  const { right, asUpstream } = expected;
  const { status, body, end } = answer;
  if (status === 0) {
    return { outcome: end === 'timeout' ? 'hang' : 'closed', reason: `no headers: ${end}` };
  }
  if (status === 503) return judgeUnavailable(method, answer);
  if (status !== right.status) return { outcome: 'status', reason: `status ${status}` };
  const wrongHeader = headerTrouble(answer, right);
  if (end !== 'complete') {
    const isPrefix = body.equals(right.bytes.subarray(0, body.length));
    if (!isPrefix && end !== 'rst') return { outcome: 'wrong', reason: 'wrong bytes, no reset' };
    if (end === 'timeout') return { outcome: 'left', reason: `${body.length} bytes` };
    return { outcome: end === 'rst' ? 'reset' : 'broken', reason: `${body.length} bytes` };
  }
  if (asUpstream !== undefined && body.equals(asUpstream)) return { outcome: 'as_upstream' };
  if (wrongHeader !== undefined) return { outcome: 'wrong', reason: wrongHeader };
  if (method === 'HEAD') return { outcome: 'content' };
  const digest = createHash('sha256').update(body).digest('hex');
  const rightDigest = createHash('sha256').update(right.bytes).digest('hex');
  if (digest !== rightDigest) return { outcome: 'wrong', reason: `the bytes are ${digest}` };
  return { outcome: 'content' };
}

function judgeUnavailable(
  method: ClientRequest['method'],
  { body, headers }: ClientAnswer,
): { readonly outcome: Outcome; readonly reason?: string } {
  if (method === 'HEAD') return { outcome: 'unavailable' };
  try {
    const parsed = JSON.parse(body.toString('utf8')) as { errors?: { message?: string }[] };
    const message = parsed.errors?.[0]?.message;
    if (message !== undefined && headers['content-type']?.startsWith('application/json') === true) {
      return { outcome: 'unavailable', reason: message };
    }
  } catch {
    // Reported like any other body that is none.
  }
  return { outcome: 'wrong', reason: '503 without an OCI error' };
}

function headerTrouble({ headers }: ClientAnswer, right: RightAnswer): string | undefined {
  const wanted: Readonly<Record<string, string | undefined>> = {
    'content-length': String(right.bytes.length),
    'docker-content-digest': right.digest,
    'content-type': right.mediaType,
    'content-range': right.contentRange,
    'content-encoding': undefined,
  };
  for (const [name, value] of Object.entries(wanted)) {
    if (headers[name] !== value) return `${name} is ${String(headers[name])}, not ${value}`;
  }
  return undefined;
}
