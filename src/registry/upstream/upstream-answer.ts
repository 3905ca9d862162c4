import { validateHeaderValue } from '../../http/node-http.ts';
import type { UpstreamResponse } from './upstream-client.ts';

/** The most that is read of an upstream's error body, bytes. */
const MAX_ERROR_BODY_BYTES = 64 * 1024;
/** How long an error body may take, milliseconds. */
const ERROR_BODY_TIMEOUT_MS = 2000;
/** Clocks differ; an answer from further in the future than this tells a wrong time. */
const MAX_CLOCK_SKEW_MS = 60_000;

/** An answer that is no content: a challenge, a refusal, "not found". */
export interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: Buffer;
}

/** @returns one header's value; of several, the first */
export function headerOf(
  response: Pick<UpstreamResponse, 'headers'>,
  name: string,
): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** @returns undefined when the header is missing or no whole number */
export function contentLengthOf(response: UpstreamResponse): number | undefined {
  const text = headerOf(response, 'content-length');
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text);
}

/**
 * How a body is encoded although it was asked for as it is, RFC 9110 8.4: its length and its bytes
 * are not those of the content then.
 *
 * @returns "gzip" and the like; undefined when it is not
 */
export function encodingOf(response: Pick<UpstreamResponse, 'headers'>): string | undefined {
  const named = [response.headers['content-encoding'] ?? []].flat().join(',').toLowerCase();
  const encodings = named.split(',').map((each) => each.trim());
  return encodings.find((each) => each !== '' && each !== 'identity');
}

/**
 * When the upstream answered, by its own clock; by ours if it does not say, or names a future
 * that would outlast every later answer.
 */
export function dateOf(response: UpstreamResponse, nowMs: number): number {
  const parsed = Date.parse(headerOf(response, 'date') ?? '');
  return Number.isNaN(parsed) || parsed > nowMs + MAX_CLOCK_SKEW_MS ? nowMs : parsed;
}

/** Keeps what a client needs of an answer that is no content. Never throws. */
export async function refusalOf(response: UpstreamResponse): Promise<Refusal> {
  const headers: Record<string, string | string[]> = {};
  // A client would take encoded bytes for text.
  const isReadable = encodingOf(response) === undefined;
  for (const name of ['www-authenticate', 'content-type', 'docker-distribution-api-version']) {
    const value = response.headers[name];
    if (name === 'content-type' && !isReadable) continue;
    if (value !== undefined && [value].flat().every(canBeSent)) headers[name] = value;
  }
  if (isReadable) return { status: response.status, headers, body: await readShort(response) };
  discard(response);
  return { status: response.status, headers, body: Buffer.alloc(0) };
}

/** Lets a body go that nobody wants. */
export function discard(response: UpstreamResponse): void {
  response.body.on('error', () => undefined);
  response.body.destroy();
}

function canBeSent(value: string): boolean {
  try {
    validateHeaderValue('x', value);
    return true;
  } catch {
    return false;
  }
}

async function readShort(response: UpstreamResponse): Promise<Buffer> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  const timer = setTimeout(() => response.body.destroy(), ERROR_BODY_TIMEOUT_MS);
  try {
    for await (const part of response.body as AsyncIterable<Buffer>) {
      sizeBytes += part.length;
      if (sizeBytes > MAX_ERROR_BODY_BYTES) break;
      parts.push(part);
    }
  } catch {
    // What has come is all there is; the status says enough.
  } finally {
    clearTimeout(timer);
  }
  return Buffer.concat(parts);
}
