import type { IncomingMessage } from 'node:http';
import { request as requestTls } from 'node:https';
import { request as requestPlain } from '../http/node-http.ts';
import { API_VERSIONS, type ApiCalls, type ResourceName, type Verb } from './api-calls.ts';
import type { ClusterAccess } from './cluster-access.ts';
import { readJsonLines } from './json-lines.ts';
import { KubeError } from './kube-error.ts';

/** The part of an object that every resource has. */
export interface KubeObject {
  readonly metadata?: {
    readonly name?: string;
    readonly namespace?: string;
    readonly resourceVersion?: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

/** All objects that a list found, over all of its pages. */
export interface KubeList<T> {
  readonly items: readonly T[];
  /** From which a watch goes on. */
  readonly resourceVersion: string;
}

/** One line of a watch. */
export interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

export interface KubeApiOptions {
  /** How long a call may take, milliseconds; of a watch, until its headers have come. */
  readonly timeoutMs: number;
}

/** What objects are meant. */
export interface Selection {
  /** Empty: the one of the service account or context that asks. */
  readonly namespace: string;
  readonly labelSelector?: string;
  readonly signal?: AbortSignal;
}

const PAGE_ITEMS = 500;
const MAX_PAGES = 100;
const MAX_BODY_BYTES = 32 * 1024 * 1024;
const MAX_LINE_BYTES = 4 * 1024 * 1024;
const MAX_RETRY_AFTER_MS = 60_000;

interface Call {
  readonly verb: Verb;
  readonly resource: ResourceName;
  readonly namespace: string;
  readonly name?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
}

const METHODS: Readonly<Record<Verb, string>> = {
  ...{ get: 'GET', list: 'GET', watch: 'GET' },
  ...{ create: 'POST', update: 'PUT', delete: 'DELETE' },
};

/**
 * The few calls to a Kubernetes API server that Salvor makes, and no others: what is not among its
 * `calls` is refused before anything is sent. The official client would cost each agent 40 MiB of
 * memory for them.
 *
 * Every method throws a KubeError when there is no answer in time or it is not a good one.
 */
export class KubeApi {
  readonly #options: KubeApiOptions;
  readonly #connect: () => Promise<ClusterAccess>;
  #access: ClusterAccess | undefined;
  readonly #calls: readonly ApiCalls[];

  /**
   * @param dependencies.connect finds the API server; asked again at the next call when it throws
   */
  constructor(
    options: KubeApiOptions,
    dependencies: { connect: () => Promise<ClusterAccess>; calls: readonly ApiCalls[] },
  ) {
    this.#options = options;
    this.#connect = dependencies.connect;
    this.#calls = dependencies.calls;
  }

  /**
   * Lists objects, page by page.
   *
   * @param selection.resourceVersion "0": what the API server has at hand, without asking its
   *   store; left out: the newest
   */
  async list<T extends KubeObject>(
    resource: ResourceName,
    selection: Selection & { readonly resourceVersion?: string },
  ): Promise<KubeList<T>> {
    const { namespace, signal } = selection;
    const items: T[] = [];
    let next: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const query: Record<string, string> = { limit: String(PAGE_ITEMS) };
      if (selection.labelSelector !== undefined) query['labelSelector'] = selection.labelSelector;
      if (next !== undefined) query['continue'] = next;
      else if (selection.resourceVersion !== undefined) {
        query['resourceVersion'] = selection.resourceVersion;
      }
      const call: Call = { verb: 'list', resource, namespace, query, signal };
      const list = await this.#json<ListBody<T>>(call);
      const found: unknown = list.items;
      if (!Array.isArray(found)) throw new KubeError(`${actionOf(call)}: no items in it`);
      items.push(...(found as T[]));
      next = list.metadata?.continue;
      if (next === undefined || next === '') {
        return { items, resourceVersion: list.metadata?.resourceVersion ?? '' };
      }
    }
    throw new KubeError(`Cannot list ${resource}: more than ${MAX_PAGES} pages`);
  }

  /**
   * Follows changes from a version on, bookmarks among them, until the server ends it.
   *
   * @param options.timeoutMs when the server is to end it
   * @param options.onOpen called when the server has accepted it
   * @throws KubeError, from the iteration, with status 410 when the version is too old
   */
  async *watch<T extends KubeObject>(
    resource: ResourceName,
    options: Selection & {
      readonly resourceVersion: string;
      readonly timeoutMs: number;
      readonly onOpen?: () => void;
    },
  ): AsyncGenerator<WatchEvent<T>> {
    const { namespace, labelSelector, resourceVersion, signal } = options;
    const query = {
      watch: '1',
      allowWatchBookmarks: 'true',
      timeoutSeconds: String(Math.ceil(options.timeoutMs / 1000)),
      resourceVersion,
      ...(labelSelector === undefined ? {} : { labelSelector }),
    };
    const call: Call = { verb: 'watch', resource, namespace, query, signal };
    const response = await this.#send(call);
    try {
      options.onOpen?.();
      for await (const line of readJsonLines(response, MAX_LINE_BYTES)) {
        const event = line as { type?: string; object?: T & StatusBody };
        if (event.type === 'ERROR') throw statusError(actionOf(call), event.object);
        if (!isWatchEvent<T>(event)) throw new Error('a line that is no event');
        yield event;
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw asKubeError(actionOf(call), error);
    } finally {
      response.destroy();
    }
  }

  /** @returns undefined when there is no such object */
  async get<T extends KubeObject>(
    resource: ResourceName,
    target: { readonly namespace: string; readonly name: string; readonly signal?: AbortSignal },
  ): Promise<T | undefined> {
    try {
      return await this.#json<T>({ verb: 'get', resource, ...target });
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Makes an object. Status 409: there is one of that name. */
  async create<T extends KubeObject>(
    resource: ResourceName,
    object: T,
    target: { readonly namespace: string; readonly signal?: AbortSignal },
  ): Promise<T> {
    return this.#json<T>({ verb: 'create', resource, body: object, ...target });
  }

  /** Replaces an object. Status 409: it has changed since its resourceVersion. */
  async update<T extends KubeObject>(
    resource: ResourceName,
    object: T,
    target: { readonly namespace: string; readonly name: string; readonly signal?: AbortSignal },
  ): Promise<T> {
    return this.#json<T>({ verb: 'update', resource, body: object, ...target });
  }

  /** Deletes an object. Harmless when there is none. */
  async delete(
    resource: ResourceName,
    target: { readonly namespace: string; readonly name: string; readonly signal?: AbortSignal },
  ): Promise<void> {
    try {
      await this.#json({ verb: 'delete', resource, ...target });
    } catch (error) {
      if (!(error instanceof KubeError && error.status === 404)) throw error;
    }
  }

  async #json<T>(call: Call): Promise<T> {
    const action = actionOf(call);
    const response = await this.#send(call);
    try {
      return JSON.parse(await readBody(response, this.#options.timeoutMs)) as T;
    } catch (error) {
      call.signal?.throwIfAborted();
      throw asKubeError(action, error);
    }
  }

  /** @returns a response with a status below 300; its body is still to be read */
  async #send(call: Call): Promise<IncomingMessage> {
    const action = actionOf(call);
    call.signal?.throwIfAborted();
    this.#refuseUndeclared(call);
    let response: IncomingMessage;
    try {
      response = await this.#request(call);
    } catch (error) {
      call.signal?.throwIfAborted();
      throw asKubeError(action, error);
    }
    const { statusCode: status = 0 } = response;
    if (status >= 200 && status < 300) return response;
    const text = await readBody(response, this.#options.timeoutMs).catch(() => '');
    const retryAfter = Number(response.headers['retry-after']);
    throw statusError(action, parseStatus(text), {
      status,
      ...(retryAfter > 0 && { retryAfterMs: Math.min(retryAfter * 1000, MAX_RETRY_AFTER_MS) }),
    });
  }

  #refuseUndeclared({ verb, resource }: Call): void {
    const isDeclared = this.#calls.some(
      (each) => each.resource === resource && each.verbs.includes(verb),
    );
    if (!isDeclared) throw new Error(`Cannot ${verb} ${resource}: API_CALLS does not say so`);
  }

  async #request(call: Call): Promise<IncomingMessage> {
    const access = (this.#access ??= await this.#connect());
    const options = await access.requestOptions();
    const body = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const send = access.url.protocol === 'http:' ? requestPlain : requestTls;
    const request = send(this.#urlOf(call, access), {
      // Calls are minutes apart: a connection that is kept would only be found dead.
      agent: false,
      ...options,
      method: METHODS[call.verb],
      headers: {
        ...(options.headers as Record<string, string> | undefined),
        accept: 'application/json',
        'user-agent': 'salvor',
        ...(body && { 'content-type': 'application/json', 'content-length': body.length }),
      },
      ...(call.signal && { signal: call.signal }),
    });
    const late = setTimeout(
      () => request.destroy(new Error('no answer in time')),
      this.#options.timeoutMs,
    );
    request.once('response', resolve);
    // Errors after the response reach its reader.
    request.on('error', reject);
    request.end(body);
    try {
      const response = await promise;
      response.socket.setKeepAlive(true, 30_000);
      return response;
    } finally {
      clearTimeout(late);
    }
  }

  #urlOf(call: Call, access: ClusterAccess): URL {
    const { resource, name, query = {} } = call;
    const namespace = call.namespace || access.namespace || 'default';
    const group = this.#calls.find((each) => each.resource === resource)?.apiGroup ?? '';
    const root = group === '' ? 'api' : `apis/${group}`;
    const base = access.url.href.replace(/\/$/, '');
    const path = `${root}/${API_VERSIONS[resource]}/namespaces/${namespace}/${resource}`;
    const url = new URL(`${base}/${path}${name === undefined ? '' : `/${name}`}`);
    for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
    return url;
  }
}

interface ListBody<T> {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items?: readonly T[];
}

interface StatusBody {
  readonly code?: number;
  readonly reason?: string;
  readonly message?: string;
}

function actionOf({ verb, resource, namespace, name }: Call): string {
  const where = namespace === '' ? '' : ` in ${namespace}`;
  return `Cannot ${verb} ${resource}${where}${name === undefined ? '' : ` (${name})`}`;
}

function isWatchEvent<T>(event: { type?: string; object?: unknown }): event is WatchEvent<T> {
  const types = ['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK'];
  return types.includes(event.type ?? '') && typeof event.object === 'object';
}

function statusError(
  action: string,
  body: StatusBody | undefined,
  answer: { readonly status?: number; readonly retryAfterMs?: number } = {},
): KubeError {
  const status = answer.status ?? body?.code;
  const said = typeof body?.message === 'string' ? body.message.slice(0, 500) : '';
  const { reason } = body ?? {};
  const { retryAfterMs } = answer;
  const what = [status, reason].filter((each) => each !== undefined).join(' ');
  const message = `${action}: the API server answered ${what}${said === '' ? '' : `, ${said}`}`;
  return new KubeError(message, { status, reason, retryAfterMs });
}

function parseStatus(text: string): StatusBody | undefined {
  try {
    const body = JSON.parse(text) as unknown;
    return typeof body === 'object' && body !== null ? body : undefined;
  } catch {
    return undefined;
  }
}

function asKubeError(action: string, error: unknown): KubeError {
  if (error instanceof KubeError) return error;
  // Parsers quote what they cannot read, which may be a secret.
  if (error instanceof SyntaxError) return new KubeError(`${action}: the answer is no JSON`);
  const said = error instanceof Error ? error.message : String(error);
  return new KubeError(`${action}: ${said}`, { cause: error });
}

async function readBody(response: IncomingMessage, timeoutMs: number): Promise<string> {
  const late = setTimeout(() => response.destroy(new Error('no end in time')), timeoutMs);
  try {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_BODY_BYTES) throw new Error(`more than ${MAX_BODY_BYTES} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString();
  } finally {
    clearTimeout(late);
    response.destroy();
  }
}
