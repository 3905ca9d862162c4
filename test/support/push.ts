import { createReadStream } from 'node:fs';
import { request, type IncomingHttpHeaders, type RequestOptions } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import type { Blob, Image } from './image.ts';

const pushTimeoutMs = 120_000;

/** What was pushed. */
export interface PushedImage {
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  readonly tag: string;
  /** Everything below the manifest: configs, layers and, of an index, the children's manifests. */
  readonly blobs: readonly { readonly digest: string; readonly size: number }[];
}

/** Options of a push. */
export interface PushOptions {
  /** Value of the Authorization header. */
  readonly authorization?: string;
}

/**
 * Uploads an image to a registry over plain http: blobs that it lacks, children, then the manifest
 * under the tag. Nothing is held in memory.
 *
 * @param target.baseUrl such as http://127.0.0.1:5000
 * @throws on any answer that is not the expected one
 */
export async function pushImage(
  target: {
    readonly baseUrl: string;
    readonly repository: string;
    readonly tag: string;
  } & PushOptions,
  image: Image,
): Promise<PushedImage> {
  const repositoryUrl = `${target.baseUrl}/v2/${target.repository}`;
  const below = await pushContent(repositoryUrl, image, target);
  await pushManifest(`${repositoryUrl}/manifests/${target.tag}`, image, target);
  const { digest, mediaType, size } = image;
  return { digest, mediaType, size, tag: target.tag, blobs: below };
}

async function pushContent(
  repositoryUrl: string,
  image: Image,
  options: PushOptions,
): Promise<{ digest: string; size: number }[]> {
  const pushed: { digest: string; size: number }[] = [];
  for (const blob of image.blobs) {
    await pushBlob(repositoryUrl, blob, options);
    pushed.push({ digest: blob.digest, size: blob.size });
  }
  for (const child of image.children) {
    pushed.push(...(await pushContent(repositoryUrl, child, options)));
    await pushManifest(`${repositoryUrl}/manifests/${child.digest}`, child, options);
    pushed.push({ digest: child.digest, size: child.size });
  }
  return pushed;
}

async function pushBlob(repositoryUrl: string, blob: Blob, options: PushOptions): Promise<void> {
  const known = await send(`${repositoryUrl}/blobs/${blob.digest}`, { method: 'HEAD' }, options);
  if (known.status === 200) return;
  const start = await send(`${repositoryUrl}/blobs/uploads/`, { method: 'POST' }, options);
  expectStatus(start, 202, 'start an upload');
  const location = new URL(start.headers.location ?? '', `${repositoryUrl}/blobs/uploads/`);
  location.searchParams.set('digest', blob.digest);
  const body = 'data' in blob ? Readable.from([blob.data]) : createReadStream(blob.path);
  const headers = { 'content-type': 'application/octet-stream', 'content-length': blob.size };
  const end = await send(location.href, { method: 'PUT', headers, body }, options);
  expectStatus(end, 201, `push ${blob.digest}`);
}

async function pushManifest(url: string, image: Image, options: PushOptions): Promise<void> {
  const headers = { 'content-type': image.mediaType, 'content-length': image.size };
  const body = Readable.from([image.manifest]);
  const answer = await send(url, { method: 'PUT', headers, body }, options);
  expectStatus(answer, 201, `push ${url}`);
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

async function send(
  url: string,
  { body, ...options }: RequestOptions & { readonly body?: Readable },
  { authorization }: PushOptions,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const signal = AbortSignal.timeout(pushTimeoutMs);
  const headers = {
    ...(options.headers as Record<string, string> | undefined),
    ...(authorization !== undefined && { authorization }),
  };
  const outgoing = request(url, { ...options, headers, signal });
  outgoing.once('error', reject);
  outgoing.once('response', (response) => {
    const { statusCode = 0, headers: answered } = response;
    text(response).then((content) => {
      resolve({ status: statusCode, headers: answered, body: content });
    }, reject);
  });
  if (body === undefined) outgoing.end();
  // Its failure also fails the request, or comes after an early answer that says more.
  else pipeline(body, outgoing).catch(() => undefined);
  return promise;
}

function expectStatus(answer: Answer, status: number, action: string): void {
  if (answer.status === status) return;
  throw new Error(`Cannot ${action}: status ${answer.status}, ${answer.body.slice(0, 500)}`);
}
