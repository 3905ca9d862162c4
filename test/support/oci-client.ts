import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

const requestTimeoutMs = 110_000;
const maxManifestBytes = 16 * 1024 * 1024;

const manifestTypes = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  '*/*',
].join(', ');

/** What is special about one request. */
export interface FetchOptions {
  /** Value of the Range header, such as "bytes=0-99". */
  readonly range?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Reads a body no faster than this. */
  readonly bytesPerSecond?: number;
  /** Keeps connections; none are kept unless told. */
  readonly agent?: Agent;
}

/** An answer without its body. */
export interface HeadAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** From the request's first byte to the answer's head, in milliseconds. */
  readonly headersMs: number;
}

/** An answer with its body. */
export interface GetAnswer extends HeadAnswer {
  readonly body: Buffer;
  readonly totalMs: number;
}

/** An answer whose body was hashed and thrown away. */
export interface HashAnswer extends HeadAnswer {
  readonly digest: string;
  readonly size: number;
  readonly totalMs: number;
}

/** One piece of a pulled image: a manifest, config or layer. */
export interface PulledContent {
  readonly digest: string;
  readonly size: number;
  readonly mediaType: string;
  /** What the mirror said about where it is from: its Salvor-Source header. */
  readonly source: string | undefined;
  readonly totalMs: number;
}

/** A pulled image. */
export interface PulledImage {
  readonly digest: string;
  readonly mediaType: string;
  readonly contents: readonly PulledContent[];
  readonly totalMs: number;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/**
 * GET over plain http, the body in memory.
 *
 * @throws when the connection breaks before the answer is complete
 */
export async function get(url: string, options: FetchOptions = {}): Promise<GetAnswer> {
  const startedAt = performance.now();
  const { response, head } = await open('GET', url, options);
  const body = await buffer(paced(response, options.bytesPerSecond));
  return { ...head, body, totalMs: performance.now() - startedAt };
}

/** HEAD over plain http. */
export async function head(url: string, options: FetchOptions = {}): Promise<HeadAnswer> {
  const opened = await open('HEAD', url, options);
  opened.response.resume();
  return opened.head;
}

/**
 * GET over plain http; the body is hashed as it arrives, whatever its size.
 *
 * @throws when the connection breaks before the answer is complete
 */
export async function getHash(url: string, options: FetchOptions = {}): Promise<HashAnswer> {
  const startedAt = performance.now();
  const { response, head: answer } = await open('GET', url, options);
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of paced(response, options.bytesPerSecond)) {
    hash.update(chunk);
    size += chunk.length;
  }
  const digest = `sha256:${hash.digest('hex')}`;
  return { ...answer, digest, size, totalMs: performance.now() - startedAt };
}

/**
 * Pulls an image as a careful client does, with its own idea of every digest: resolves the
 * reference, walks indexes (every platform that the registry has), fetches configs and layers.
 *
 * @param target.reference tag or digest
 * @param target.ns value of the ns query that tells a mirror which registry is meant
 * @param target.platform only this architecture of an index; all unless told
 * @throws at the first wrong status, digest, size or media type
 */
export async function pullImage(
  target: {
    readonly baseUrl: string;
    readonly repository: string;
    readonly reference: string;
    readonly ns?: string;
    readonly architecture?: string;
  },
  options: FetchOptions = {},
): Promise<PulledImage> {
  const startedAt = performance.now();
  const resolved = await resolve(target, options);
  const contents: PulledContent[] = [];
  await pullManifest(resolved, { target, options, contents });
  return {
    digest: resolved.digest,
    mediaType: resolved.mediaType,
    contents,
    totalMs: performance.now() - startedAt,
  };
}

/**
 * Sends bytes as they are and reads until the other side ends the connection: for requests that no
 * HTTP library would send.
 *
 * @returns what came back, at most 1 MiB; empty when the connection was reset
 */
export async function sendRaw(
  port: number,
  bytes: string | Buffer,
  { timeoutMs = 10_000 }: { readonly timeoutMs?: number } = {},
): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const chunks: Buffer[] = [];
  let size = 0;
  socket.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= 1024 * 1024) chunks.push(chunk);
  });
  socket.on('error', () => socket.destroy());
  socket.write(bytes);
  await once(socket, 'close').finally(() => clearTimeout(timer));
  return Buffer.concat(chunks).toString('latin1');
}

interface Pull {
  readonly target: Parameters<typeof pullImage>[0];
  readonly options: FetchOptions;
  readonly contents: PulledContent[];
}

async function resolve(target: Pull['target'], options: FetchOptions): Promise<Descriptor> {
  const url = contentUrl(target, `manifests/${target.reference}`);
  const answer = await head(url, withAccept(options, manifestTypes));
  expectThat(answer.status === 200, `HEAD ${url}: status ${answer.status}`);
  const digest = answer.headers['docker-content-digest'];
  const mediaType = answer.headers['content-type'];
  expectThat(typeof digest === 'string', `HEAD ${url}: no Docker-Content-Digest`);
  expectThat(mediaType !== undefined, `HEAD ${url}: no Content-Type`);
  return { digest, mediaType, size: Number(answer.headers['content-length']) };
}

async function pullManifest(descriptor: Descriptor, pull: Pull): Promise<void> {
  expectThat(descriptor.size <= maxManifestBytes, `${descriptor.digest}: too big for a manifest`);
  const url = contentUrl(pull.target, `manifests/${descriptor.digest}`);
  const answer = await get(url, withAccept(pull.options, `${descriptor.mediaType}, */*`));
  const digest = `sha256:${createHash('sha256').update(answer.body).digest('hex')}`;
  check(url, descriptor, { ...answer, digest, size: answer.body.length });
  const mediaType = answer.headers['content-type'];
  expectThat(mediaType === descriptor.mediaType, `GET ${url}: media type ${mediaType}`);
  pull.contents.push(contentOf(descriptor, answer));

  const manifest = JSON.parse(answer.body.toString('utf8')) as {
    manifests?: (Descriptor & { platform?: { architecture: string } })[];
    config?: Descriptor;
    layers?: Descriptor[];
  };
  const { architecture } = pull.target;
  for (const child of manifest.manifests ?? []) {
    const isWanted = architecture === undefined || child.platform?.architecture === architecture;
    if (isWanted) await pullManifest(child, pull);
  }
  const blobs = [manifest.config, ...(manifest.layers ?? [])];
  for (const blob of blobs) if (blob !== undefined) await pullBlob(blob, pull);
}

async function pullBlob(descriptor: Descriptor, pull: Pull): Promise<void> {
  const url = contentUrl(pull.target, `blobs/${descriptor.digest}`);
  const answer = await getHash(url, pull.options);
  check(url, descriptor, answer);
  pull.contents.push(contentOf(descriptor, answer));
}

function check(
  url: string,
  expected: Descriptor,
  answer: HeadAnswer & { readonly digest: string; readonly size: number },
): void {
  expectThat(answer.status === 200, `GET ${url}: status ${answer.status}`);
  expectThat(answer.digest === expected.digest, `GET ${url}: the bytes are ${answer.digest}`);
  expectThat(answer.size === expected.size, `GET ${url}: ${answer.size} bytes`);
  const length = answer.headers['content-length'];
  expectThat(length === String(expected.size), `GET ${url}: Content-Length ${length}`);
  const encoding = answer.headers['content-encoding'];
  expectThat(encoding === undefined, `GET ${url}: Content-Encoding ${encoding}`);
}

function contentOf(
  { digest, size, mediaType }: Descriptor,
  answer: HeadAnswer & { readonly totalMs: number },
): PulledContent {
  const source = answer.headers['salvor-source'];
  return {
    digest,
    size,
    mediaType,
    source: typeof source === 'string' ? source : undefined,
    totalMs: answer.totalMs,
  };
}

function contentUrl(target: Pull['target'], path: string): string {
  const query = target.ns === undefined ? '' : `?ns=${encodeURIComponent(target.ns)}`;
  return `${target.baseUrl}/v2/${target.repository}/${path}${query}`;
}

function withAccept(options: FetchOptions, accept: string): FetchOptions {
  return { ...options, headers: { accept, ...options.headers } };
}

function expectThat(isSo: boolean, otherwise: string): asserts isSo {
  if (!isSo) throw new Error(`Cannot pull: ${otherwise}`);
}

async function open(
  method: 'GET' | 'HEAD',
  url: string,
  options: FetchOptions,
): Promise<{ response: IncomingMessage; head: HeadAnswer }> {
  const startedAt = performance.now();
  const timeout = AbortSignal.timeout(requestTimeoutMs);
  const outgoing = request(url, {
    method,
    headers: { ...(options.range !== undefined && { range: options.range }), ...options.headers },
    signal: options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]),
    agent: options.agent ?? false,
  });
  outgoing.end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  // Later errors of the request are the body's, whose reader sees them.
  outgoing.on('error', () => response.destroy());
  const { statusCode: status = 0, headers } = response;
  return { response, head: { status, headers, headersMs: performance.now() - startedAt } };
}

async function* paced(
  response: IncomingMessage,
  bytesPerSecond = Number.POSITIVE_INFINITY,
): AsyncGenerator<Buffer> {
  const startedAt = performance.now();
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    yield chunk;
    size += chunk.length;
    const dueMs = (size * 1000) / bytesPerSecond - (performance.now() - startedAt);
    if (dueMs > 1) await delay(dueMs);
  }
  if (!response.complete) throw new Error('Cannot read the body: the connection ended early');
}
