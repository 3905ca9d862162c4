/** What a node's registry logged about one thing that was asked of it. */
export interface ServedPart {
  readonly what: 'tag' | 'manifest' | 'blob';
  /** Empty for a tag. */
  readonly digest: string;
  readonly status: number;
  readonly sizeBytes: number;
  /** "upstream", "node/a", "upstream,node/a", "memory". */
  readonly source: string;
  /** Sources that failed on the way, in order. */
  readonly failed: readonly { readonly source: string; readonly outcome: string }[];
}

interface RequestLine {
  readonly msg: string;
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly source: string;
  readonly bytes: number;
  readonly tried: readonly { readonly source: string; readonly outcome: string }[];
}

/** An attempt that was given up since another source was faster is no failure. */
const HARMLESS = new Set(['ok', 'overtaken']);

/**
 * Reads a line of a registry's log.
 *
 * @returns undefined for lines about anything else than content and tags
 */
export function parseServedPart(line: string): ServedPart | undefined {
  if (!line.includes('"msg":"request"')) return undefined;
  const { method, url, status, source, bytes, tried } = JSON.parse(line) as RequestLine;
  const match = /\/(?<kind>manifests|blobs)\/(?<reference>[^/?]+)/.exec(url)?.groups;
  if (match === undefined) return undefined;
  const reference = match['reference'] ?? '';
  const isDigest = reference.includes(':') || /%3a/i.test(reference);
  if (isDigest && method !== 'GET') return undefined;
  return {
    what: !isDigest ? 'tag' : match['kind'] === 'blobs' ? 'blob' : 'manifest',
    digest: isDigest ? decodeURIComponent(reference) : '',
    status,
    sizeBytes: bytes,
    source,
    failed: tried.filter(({ outcome }) => !HARMLESS.has(outcome)),
  };
}

/** Where the bytes of parts came from. */
export interface Origins {
  readonly upstreamBytes: number;
  readonly nodeBytes: number;
  /** Of blobs that began at the upstream and went on from nodes. */
  readonly joinedBytes: number;
}

/** Adds up sizes by source. What came from memory was a node's or the upstream's moments before. */
export function originsOf(parts: readonly ServedPart[]): Origins {
  const sum = (matches: (source: string) => boolean): number =>
    parts
      .filter(({ source }) => matches(source))
      .reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  return {
    upstreamBytes: sum((source) => source === 'upstream'),
    nodeBytes: sum((source) => source.startsWith('node/')),
    joinedBytes: sum(isJoined),
  };
}

/** Whether one response began at the upstream and went on from a node. */
export function isJoined(source: string): boolean {
  return /^upstream,node\//.test(source);
}
