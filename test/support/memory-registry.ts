import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { freePort } from './ports.ts';
import type { TestScope } from './test-scope.ts';

/** What a registry holds under a digest. */
export interface RegistryContent {
  readonly bytes: Buffer;
  /** Of a manifest; a blob has none. */
  readonly mediaType?: string;
}

export interface MemoryRegistryOptions {
  readonly port?: number;
  /** PEM. Given: https instead of http. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Has what this one has, at any time. */
  readonly contentsOf?: MemoryRegistry;
  /** Blobs are redirected to this origin, as registries do that keep them in a CDN. */
  readonly blobOrigin?: () => string | undefined;
  /** Requests without Authorization are challenged for a token of this realm. */
  readonly realm?: () => string | undefined;
}

/**
 * An honest registry in this process: manifests by tag and digest, blobs, ranges, whatever the
 * repository is called. For tests that need thousands of images for a moment each; where it matters
 * that a registry is a real one, there is DockerRegistry.
 */
export class MemoryRegistry {
  readonly port: number;
  readonly url: string;
  /** How many requests came in. */
  requestCount = 0;
  readonly #options: MemoryRegistryOptions;
  readonly #contents: Map<string, RegistryContent>;
  readonly #tags: Map<string, string>;

  private constructor(port: number, options: MemoryRegistryOptions) {
    this.port = port;
    const other = options.contentsOf;
    this.#contents = other === undefined ? new Map<string, RegistryContent>() : other.#contents;
    this.#tags = other === undefined ? new Map<string, string>() : other.#tags;
    this.#options = options;
    this.url = `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  }

  /** Starts a registry that ends with the scope. */
  static async start(
    scope: TestScope,
    options: MemoryRegistryOptions = {},
  ): Promise<MemoryRegistry> {
    const registry = new MemoryRegistry(options.port ?? (await freePort()), options);
    const answer = (request: IncomingMessage, response: ServerResponse): void =>
      registry.#answer(request, response);
    const server =
      options.tls === undefined ? createServer(answer) : createTlsServer(options.tls, answer);
    server.keepAliveTimeout = 5000;
    server.listen({ host: '127.0.0.1', port: registry.port });
    await once(server, 'listening');
    scope.defer(async () => {
      server.closeAllConnections();
      const closed = once(server, 'close');
      server.close();
      await closed;
    });
    return registry;
  }

  /** @returns the digest */
  put(content: RegistryContent): string {
    const digest = `sha256:${createHash('sha256').update(content.bytes).digest('hex')}`;
    this.#contents.set(digest, content);
    return digest;
  }

  /** Lets a tag, in every repository, name a digest. */
  tag(tag: string, digest: string): void {
    this.#tags.set(tag, digest);
  }

  remove(digest: string): void {
    this.#contents.delete(digest);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.requestCount += 1;
    request.resume();
    const path = new URL(request.url ?? '/', this.url).pathname;
    const realm = this.#options.realm?.();
    if (realm !== undefined && request.headers.authorization === undefined) {
      const challenge = `Bearer realm="${realm}",service="test",scope="repository:x:pull"`;
      sendError(response, 401, { code: 'UNAUTHORIZED', challenge });
      return;
    }
    if (path === '/v2/') {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 2 });
      response.end('{}');
      return;
    }
    const asked = /^\/v2\/.+\/(?<kind>manifests|blobs)\/(?<reference>[^/]+)$/.exec(path)?.groups;
    const reference = decodeURIComponent(asked?.['reference'] ?? '');
    const digest = this.#tags.get(reference) ?? reference;
    const content = this.#contents.get(digest);
    const wantsManifest = asked?.['kind'] === 'manifests';
    if (content === undefined || wantsManifest !== (content.mediaType !== undefined)) {
      const code = wantsManifest ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN';
      sendError(response, 404, { code });
      return;
    }
    const blobOrigin = wantsManifest ? undefined : this.#options.blobOrigin?.();
    if (blobOrigin !== undefined) {
      const location = `${blobOrigin}${path}`;
      response.writeHead(307, { location, 'content-length': 0 });
      response.end();
      return;
    }
    sendContent(request, response, { digest, content });
  }
}

function sendContent(
  request: IncomingMessage,
  response: ServerResponse,
  { digest, content }: { readonly digest: string; readonly content: RegistryContent },
): void {
  const { bytes, mediaType = 'application/octet-stream' } = content;
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = Number(range?.[1] ?? 0);
  const last = bytes.length - 1;
  const end = Math.min(last, range === null || range[2] === '' ? last : Number(range[2]));
  if (start > end) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}`, 'content-length': 0 });
    response.end();
    return;
  }
  response.writeHead(range === null ? 200 : 206, {
    'content-type': mediaType,
    'content-length': end - start + 1,
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    ...(range !== null && { 'content-range': `bytes ${start}-${end}/${bytes.length}` }),
  });
  response.end(request.method === 'HEAD' ? undefined : bytes.subarray(start, end + 1));
}

function sendError(
  response: ServerResponse,
  status: number,
  { code, challenge }: { readonly code: string; readonly challenge?: string },
): void {
  const body = JSON.stringify({ errors: [{ code, message: `test: ${code}` }] });
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(challenge !== undefined && { 'www-authenticate': challenge }),
  });
  response.end(body);
}
