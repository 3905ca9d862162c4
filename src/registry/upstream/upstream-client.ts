import { readFileSync } from 'node:fs';
import { getCACertificates } from 'node:tls';
import type { Dispatcher } from 'undici';
import type { AddressGuard } from '../../policy/address-guard.ts';
import { OriginBreakers } from './origin-breakers.ts';
import { proxyOptions, readProxies, refusedByProxy, type Proxies } from './proxy.ts';
import { EnvHttpProxyAgent } from './undici.ts';
import { UpstreamFailure } from './upstream-failure.ts';

const MAX_REDIRECTS = 5;

/** A request to an upstream, in its own words. */
export interface UpstreamRequest {
  readonly method: 'GET' | 'HEAD';
  /** As the distribution-spec has it: "/v2/library/nginx/manifests/1", "/v2/". */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Do not use a connection that is open already, nor leave this one open. */
  readonly fresh?: boolean;
  /** Until headers are there; the body is its reader's to bound. Milliseconds. */
  readonly headersTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** An upstream's answer, its body not yet read. Whoever gets it reads the body or destroys it. */
export interface UpstreamResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Dispatcher.ResponseData['body'];
  /** Host of the URL that answered in the end, behind redirects. */
  readonly host: string;
  /** Which one of its upstream's endpoints gave it, counted from 0. */
  readonly endpoint?: number;
}

export interface UpstreamClientOptions {
  /**
   * "https://registry.test" or "http://…". A path stands in place of /v2, as in containerd's
   * hosts.toml with override_path: https://cache.test/v2/hub is asked for /v2/hub/a/manifests/1.
   */
  readonly url: string;
  /** Sent to the URL's own host alone; they win over a request's own. Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** PEM file of authorities that are trusted beside the system's. */
  readonly ca?: string;
  /** Registry that is named in ns=; left out where the URL can only mean one. */
  readonly namespace?: string;
  readonly clientCertificate?: string;
  readonly clientKey?: string;
  readonly connections: number;
  readonly connectMs: number;
  /** How long a redirect's target that failed twice is left alone, milliseconds. */
  readonly redirectRetryMs: number;
}

/**
 * Speaks HTTP to one upstream and to where it redirects: pools of connections, the proxy that the
 * environment names, its own authorities. Knows nothing of images.
 */
export class UpstreamClient {
  readonly #base: URL;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #namespace: string | undefined;
  readonly #guard: AddressGuard;
  readonly #pooled: Dispatcher;
  readonly #fresh: Dispatcher;
  readonly #proxies: Proxies;
  readonly #breakers: OriginBreakers;
  /** Where the upstream sent a request last. */
  #redirectTarget: string | undefined;

  /**
   * @throws when a certificate file cannot be read, or the environment names a proxy that is none
   */
  constructor(options: UpstreamClientOptions, dependencies: { guard: AddressGuard }) {
    this.#base = new URL(options.url);
    this.#headers = options.headers ?? {};
    this.#namespace = options.namespace;
    this.#guard = dependencies.guard;
    this.#breakers = new OriginBreakers({ retryAfterMs: options.redirectRetryMs });
    const trust = tlsOptions(options);
    const { connections, connectMs } = options;
    const connect = { ...trust, timeout: connectMs, lookup: this.#guard.lookup };
    // HTTP/1.1 alone, as containerd does: a fresh connection must be one, and a dead one must go
    // with the request that found it dead, which is not so where many share one.
    const pool = { bodyTimeout: 0, headersTimeout: 0, pipelining: 1, allowH2: false, connections };
    const pooled = { ...pool, keepAliveTimeout: 15_000 };
    this.#proxies = readProxies(process.env);
    // requestTls: the same authorities where a proxy stands between.
    const dispatcher = (shared: typeof pool): Dispatcher =>
      new EnvHttpProxyAgent({
        ...shared,
        ...proxyOptions(this.#proxies, { connectMs, pool: shared }),
        connect,
        requestTls: trust,
      });
    this.#pooled = dispatcher(pooled);
    this.#fresh = dispatcher(pool);
  }

  /** "registry.test" or "registry.test:5000". */
  get host(): string {
    return this.#base.host;
  }

  /**
   * Sends a request, follows redirects (Authorization and the configured headers go to the
   * upstream's own host alone) and returns when headers are there.
   *
   * @throws UpstreamFailure for everything that is not an HTTP answer
   */
  async send(request: UpstreamRequest): Promise<UpstreamResponse> {
    const timeout = new AbortController();
    const late = new DOMException('no headers in time', 'TimeoutError');
    const timer = setTimeout(() => timeout.abort(late), request.headersTimeoutMs);
    const signal = AbortSignal.any([request.signal, timeout.signal]);
    try {
      return await this.#follow(request, signal);
    } catch (error) {
      throw UpstreamFailure.from(error, this.host, request.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Looks whether something answers at a URL that the upstream has named, a token service.
   *
   * @returns the status of its answer
   * @throws UpstreamFailure when there is none
   */
  async look(url: URL, options: { readonly timeoutMs: number }): Promise<number> {
    try {
      this.#guard.checkHost(url.hostname);
      const signal = AbortSignal.timeout(options.timeoutMs);
      const response = await this.#request(url, {
        method: 'GET',
        headers: {},
        signal,
        fresh: true,
      });
      response.body.on('error', () => undefined);
      response.body.destroy();
      return response.statusCode;
    } catch (error) {
      throw UpstreamFailure.from(error, url.host);
    }
  }

  /** Whether a request gets other credentials than its client's, of the configuration. */
  get hasOwnCredentials(): boolean {
    return 'authorization' in this.#headers;
  }

  /** Counts a body that broke off against the place it came from. */
  async recordBodyFailure(failure: UpstreamFailure, origin: string): Promise<void> {
    if (origin !== this.host) await this.#breakers.recordFailure(failure, origin);
  }

  /** Whether the place that blobs came from last is being left alone. */
  get isRedirectTargetDown(): boolean {
    return this.#redirectTarget !== undefined && this.#breakers.isOpen(this.#redirectTarget);
  }

  /** Closes idle connections and cuts the others. */
  async close(): Promise<void> {
    await Promise.all([this.#pooled.destroy(), this.#fresh.destroy()]);
  }

  #urlOf(path: string): URL {
    const prefix = this.#base.pathname.replace(/\/+$/, '');
    const place = prefix === '' ? path : prefix + path.replace(/^\/v2(?=\/)/, '');
    const url = new URL(place, this.#base);
    if (this.#namespace !== undefined) url.searchParams.set('ns', this.#namespace);
    return url;
  }

  async #request(
    url: URL,
    request: Omit<UpstreamRequest, 'path' | 'headersTimeoutMs'>,
  ): Promise<Dispatcher.ResponseData> {
    const dispatcher = request.fresh === true ? this.#fresh : this.#pooled;
    const response = dispatcher.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: request.method,
      headers: { ...request.headers, 'accept-encoding': 'identity' },
      signal: request.signal,
      reset: request.fresh === true,
    });
    return response.catch((error: unknown) => {
      throw refusedByProxy(error, this.#proxies) ?? error;
    });
  }

  /** Where the upstream redirects to: its failures are its own, not the upstream's. */
  async #requestElsewhere(url: URL, request: UpstreamRequest): Promise<Dispatcher.ResponseData> {
    return this.#breakers.run(url.host, async () => {
      const response = await this.#request(url, request).catch((error: unknown) => {
        throw UpstreamFailure.from(error, url.host, request.signal);
      });
      if (response.statusCode < 500) return response;
      response.body.on('error', () => undefined);
      response.body.destroy();
      const message = `${url.host} answers ${response.statusCode}`;
      throw new UpstreamFailure('server_error', message, {
        status: response.statusCode,
        origin: url.host,
      });
    });
  }

  async #follow(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamResponse> {
    let url = this.#urlOf(request.path);
    let headers: Readonly<Record<string, string>> = { ...request.headers, ...this.#headers };
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      this.#guard.checkHost(url.hostname);
      const { statusCode, ...response } =
        url.host === this.host
          ? await this.#request(url, { ...request, headers, signal })
          : await this.#requestElsewhere(url, { ...request, headers, signal });
      const location = response.headers['location'];
      if (!isRedirect(statusCode) || typeof location !== 'string') {
        return {
          status: statusCode,
          headers: response.headers,
          body: response.body,
          host: url.host,
        };
      }
      await response.body.dump();
      const next = redirectTarget(url, location);
      if (next.host !== url.host) headers = withoutCredentials(request.headers);
      url = next;
      this.#redirectTarget = url.host;
    }
    throw new UpstreamFailure(
      'redirect',
      `${this.host} redirects more than ${MAX_REDIRECTS} times`,
    );
  }
}

function tlsOptions(options: UpstreamClientOptions): {
  ca?: string[];
  cert?: string;
  key?: string;
} {
  const { ca, clientCertificate, clientKey } = options;
  return {
    ...(ca === undefined
      ? {}
      : { ca: [...getCACertificates('default'), readFileSync(ca, 'utf8')] }),
    ...(clientCertificate === undefined ? {} : { cert: readFileSync(clientCertificate, 'utf8') }),
    ...(clientKey === undefined ? {} : { key: readFileSync(clientKey, 'utf8') }),
  };
}

function isRedirect(status: number): boolean {
  return [301, 302, 303, 307, 308].includes(status);
}

function redirectTarget(from: URL, location: string): URL {
  const target = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (target?.protocol !== 'https:' && target?.protocol !== 'http:') {
    throw new UpstreamFailure('redirect', `${from.host} redirects to something that is no URL`);
  }
  if (from.protocol === 'https:' && target.protocol === 'http:') {
    throw new UpstreamFailure('redirect', `${from.host} redirects from https to http`);
  }
  return target;
}

function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).filter(
      ([name]) => !['authorization', 'cookie'].includes(name.toLowerCase()),
    ),
  );
}
