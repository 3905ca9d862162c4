import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestScope } from './test-scope.ts';

/**
 * A Kubernetes API server for tests: real HTTP or HTTPS on a loopback port, objects in memory, one
 * counter of resource versions over all of them. As the real one does, it lists with label
 * selectors, pages with `limit` and `continue`, watches in chunks of one JSON object a line from a
 * resource version on, sends bookmarks to who asks for them, ends watches after `timeoutSeconds`,
 * refuses versions older than its history with 410 (an ERROR event in a watch, as etcd's compaction
 * gives it, or the status itself), answers 404, 409, 401 and 403 with a Status object, and gives
 * objects back with the resource version of their last change.
 *
 * It differs from the real one in this: it knows whatever path it is asked for; there is no schema,
 * no admission, no managed fields, no uid; selectors know `key=value` with commas alone; a list at
 * `resourceVersion=0` is the newest state and ignores `limit` like the watch cache, but is never
 * stale unless a test says so; a `continue` token does not expire by itself; a version from the
 * future is answered 504 at once instead of after three seconds; bookmarks come when a test asks;
 * only JSON; one token for everybody, and rights only as a list of verbs and resources.
 */
export class FakeKubeApi {
  /** "verb resource" of every request, in order. */
  readonly calls: string[] = [];
  /** Queries of every request, beside `calls`. */
  readonly queries: URLSearchParams[] = [];
  /** "verb resource" that are allowed; undefined: all. Others get 403. */
  granted: ReadonlySet<string> | undefined;
  /** What must be in Authorization; undefined: nothing. Others get 401. */
  token: string | undefined;
  /** Answers that stand in for the next requests, one each. */
  readonly failNext: ((response: ServerResponse) => void)[] = [];
  readonly #objects = new Map<string, FakeObject>();
  readonly #history: { readonly version: number; readonly event: WatchLine; key: string }[] = [];
  readonly #watches = new Set<OpenWatch>();
  readonly #server: Server | ReturnType<typeof createServer>;
  readonly #isTls: boolean;
  #version = 100;
  #oldestVersion = 0;
  #port = 0;

  constructor(tls?: { readonly cert: string; readonly key: string }) {
    const handle = (request: IncomingMessage, response: ServerResponse): void => {
      void this.#handle(request, response);
    };
    this.#isTls = tls !== undefined;
    this.#server = tls === undefined ? createServer(handle) : createTlsServer(tls, handle);
  }

  /** Starts one that ends with the scope. */
  static async start(
    scope: TestScope,
    tls?: { readonly cert: string; readonly key: string },
  ): Promise<FakeKubeApi> {
    const api = new FakeKubeApi(tls);
    scope.defer(() => api.stop());
    await api.listen();
    return api;
  }

  get url(): string {
    return `http${this.#isTls ? 's' : ''}://127.0.0.1:${this.#port}`;
  }

  get port(): number {
    return this.#port;
  }

  get openWatches(): number {
    return this.#watches.size;
  }

  get version(): number {
    return this.#version;
  }

  /** Listens, at the port it had before if there was one. */
  async listen(at: { readonly address?: string; readonly port?: number } = {}): Promise<void> {
    this.#server.listen(at.port ?? this.#port, at.address ?? '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Is gone from one moment to the next; objects stay. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  /** Puts an object there, or in the place of the one of that name. */
  put(resource: string, object: FakeObject): void {
    const key = keyOf(resource, object.metadata.namespace, object.metadata.name);
    this.#change(key, this.#objects.has(key) ? 'MODIFIED' : 'ADDED', structuredClone(object));
  }

  /** Takes an object away. */
  remove(resource: string, namespace: string, name: string): void {
    const key = keyOf(resource, namespace, name);
    const object = this.#objects.get(key);
    if (object !== undefined) this.#change(key, 'DELETED', structuredClone(object));
  }

  /** @returns the object of that name as it is now */
  object(resource: string, namespace: string, name: string): FakeObject | undefined {
    return structuredClone(this.#objects.get(keyOf(resource, namespace, name)));
  }

  /** Sends every watch that wants them a bookmark with the newest version. */
  bookmark(): void {
    this.#version += 1;
    const object = { metadata: { resourceVersion: String(this.#version) } };
    for (const watch of this.#watches) {
      if (watch.wantsBookmarks) watch.send({ type: 'BOOKMARK', object });
    }
  }

  /** Forgets all changes up to now: older versions get 410. */
  compact(): void {
    this.#version += 1;
    this.#oldestVersion = this.#version;
    this.#history.length = 0;
  }

  /** Versions begin anew, as after a restore from an old backup. */
  restore(): void {
    this.#version = 10;
    this.#oldestVersion = 0;
    this.#history.length = 0;
    for (const object of this.#objects.values()) object.metadata.resourceVersion = '10';
  }

  /** Cuts every watch: in peace, with a reset, or by saying that the version is too old. */
  endWatches(how: 'end' | 'cut' | 'gone'): void {
    for (const watch of [...this.#watches]) {
      this.#watches.delete(watch);
      if (how === 'gone') watch.send({ type: 'ERROR', object: expired });
      if (how === 'cut') watch.response.destroy();
      else watch.response.end();
    }
  }

  /** Writes something raw into every watch. */
  writeToWatches(text: string | Buffer): void {
    for (const { response } of this.#watches) response.write(text);
  }

  /** Writes the files of a service account for it; returns what a Pod's environment would say. */
  async serviceAccount(
    directory: string,
    content: { readonly ca: string; readonly token: string; readonly namespace: string },
  ): Promise<Record<string, string>> {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'ca.crt'), content.ca);
    await writeFile(join(directory, 'token'), content.token);
    await writeFile(join(directory, 'namespace'), content.namespace);
    return { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(this.#port) };
  }

  #change(key: string, type: WatchLine['type'], object: FakeObject): void {
    this.#version += 1;
    object.metadata.resourceVersion = String(this.#version);
    if (type === 'DELETED') this.#objects.delete(key);
    else this.#objects.set(key, object);
    const event = { type, object: structuredClone(object) };
    this.#history.push({ version: this.#version, event, key });
    for (const watch of this.#watches) {
      if (watch.matches(key, object)) watch.send(event);
    }
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const target = parsePath(url.pathname);
    const isWatch = url.searchParams.get('watch') === '1';
    const verb = verbOf(request.method ?? '', target.name, isWatch);
    this.calls.push(`${verb} ${target.resource}`);
    this.queries.push(url.searchParams);
    const body = await bodyOf(request);
    const fail = this.failNext.shift();
    if (fail !== undefined) {
      fail(response);
      return;
    }
    const { authorization } = request.headers;
    if (this.token !== undefined && authorization !== `Bearer ${this.token}`) {
      sendStatus(response, 401, 'Unauthorized');
    } else if (this.granted?.has(`${verb} ${target.resource}`) === false) {
      sendStatus(response, 403, 'Forbidden', `cannot ${verb} resource "${target.resource}"`);
    } else if (verb === 'list') this.#list(target, url.searchParams, response);
    else if (verb === 'watch') this.#watch(target, url.searchParams, response);
    else this.#one(verb, { ...target, body }, response);
  }

  #list(target: Target, query: URLSearchParams, response: ServerResponse): void {
    const found = [...this.#objects]
      .filter(([key, object]) => isWanted(key, object, target, query))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, object]) => object);
    const from = Number(query.get('continue') ?? 0);
    const isCached = query.get('resourceVersion') === '0';
    const limit = isCached ? Infinity : Number(query.get('limit') ?? Infinity);
    const items = found.slice(from, from + limit);
    const next = from + items.length;
    const more = next < found.length;
    send(response, 200, {
      kind: 'List',
      metadata: {
        resourceVersion: String(this.#version),
        ...(more && { continue: String(next), remainingItemCount: found.length - next }),
      },
      items,
    });
  }

  #watch(target: Target, query: URLSearchParams, response: ServerResponse): void {
    const since = Number(query.get('resourceVersion') ?? 0);
    if (since > this.#version) {
      sendStatus(response, 504, 'Timeout', `Too large resource version: ${since}`);
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const watch: OpenWatch = {
      response,
      wantsBookmarks: query.get('allowWatchBookmarks') === 'true',
      matches: (key, object) => isWanted(key, object, target, query),
      send: (line) => void response.write(`${JSON.stringify(line)}\n`),
    };
    if (since !== 0 && since < this.#oldestVersion) {
      watch.send({ type: 'ERROR', object: expired });
      response.end();
      return;
    }
    for (const { version, event, key } of this.#history) {
      if (version > since && watch.matches(key, event.object as FakeObject)) watch.send(event);
    }
    this.#watches.add(watch);
    const timeoutMs = Number(query.get('timeoutSeconds') ?? 1800) * 1000;
    const timer = setTimeout(() => response.end(), timeoutMs);
    response.once('close', () => {
      clearTimeout(timer);
      this.#watches.delete(watch);
    });
  }

  #one(verb: string, target: Target & { body: string }, response: ServerResponse): void {
    const { resource, namespace } = target;
    const sent = target.body === '' ? undefined : (JSON.parse(target.body) as FakeObject);
    const name = target.name ?? sent?.metadata.name ?? '';
    const key = keyOf(resource, namespace, name);
    const known = this.#objects.get(key);
    if (verb === 'create' && known !== undefined) {
      sendStatus(response, 409, 'AlreadyExists', `${resource} "${name}" already exists`);
      return;
    }
    if (verb !== 'create' && known === undefined) {
      sendStatus(response, 404, 'NotFound', `${resource} "${name}" not found`);
      return;
    }
    if (verb === 'delete') this.remove(resource, namespace, name);
    if (sent === undefined) {
      send(response, 200, known);
      return;
    }
    const { resourceVersion } = sent.metadata;
    if (resourceVersion !== undefined && resourceVersion !== known?.metadata.resourceVersion) {
      sendStatus(response, 409, 'Conflict', `${resource} "${name}" has been modified`);
      return;
    }
    const object = { ...sent, metadata: { ...sent.metadata, name, namespace } };
    this.#change(key, verb === 'create' ? 'ADDED' : 'MODIFIED', object);
    send(response, verb === 'create' ? 201 : 200, this.#objects.get(key));
  }
}

/** What every object has; the rest is the test's. */
export interface FakeObject {
  metadata: {
    name: string;
    namespace: string;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  [field: string]: unknown;
}

interface WatchLine {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: unknown;
}

interface OpenWatch {
  readonly response: ServerResponse;
  readonly wantsBookmarks: boolean;
  readonly matches: (key: string, object: FakeObject) => boolean;
  readonly send: (line: WatchLine) => void;
}

interface Target {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string | undefined;
}

const expired = {
  kind: 'Status',
  status: 'Failure',
  code: 410,
  reason: 'Expired',
  message: 'too old resource version',
};

/** "/apis/GROUP/VERSION/namespaces/NS/RESOURCE[/NAME]", or "/api/v1/…" for the core group. */
function parsePath(path: string): Target {
  const parts = path.split('/').filter((part) => part !== '');
  const [namespace = '', resource = '', name] = parts.slice(parts.indexOf('namespaces') + 1);
  return { namespace, resource, name };
}

function verbOf(method: string, name: string | undefined, isWatch: boolean): string {
  if (method === 'POST') return 'create';
  if (method === 'PUT') return 'update';
  if (method === 'PATCH') return 'patch';
  if (method === 'DELETE') return 'delete';
  if (isWatch) return 'watch';
  return name === undefined ? 'list' : 'get';
}

function keyOf(resource: string, namespace: string, name: string): string {
  return `${resource}/${namespace}/${name}`;
}

function isWanted(
  key: string,
  object: FakeObject,
  { resource, namespace }: Target,
  query: URLSearchParams,
): boolean {
  if (!key.startsWith(`${resource}/${namespace}/`)) return false;
  const selector = query.get('labelSelector') ?? '';
  return selector
    .split(',')
    .filter((each) => each !== '')
    .every((each) => {
      const [label = '', value] = each.split('=');
      return object.metadata.labels?.[label] === value;
    });
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

/** Answers with a Status object, as the API server does for everything but success. */
export function sendStatus(
  response: ServerResponse,
  code: number,
  reason: string,
  message = reason,
): void {
  send(response, code, { kind: 'Status', status: 'Failure', code, reason, message });
}
