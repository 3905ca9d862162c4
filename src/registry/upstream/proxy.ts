import type { buildConnector, Dispatcher, EnvHttpProxyAgent, Pool as ConnectionPool } from 'undici';
import { errors, Pool } from './undici.ts';

/** The proxies that the environment names, as undici reads it. */
export interface Proxies {
  readonly http: URL | undefined;
  readonly https: URL | undefined;
}

/** A proxy on the way to an upstream has failed, or does not lead there. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
  /** "proxy.test:3128", without the credentials that its URL may have. */
  readonly proxy: string;
  /** What it answered instead of connecting, where it did. */
  readonly status: number | undefined;

  constructor(
    proxy: string,
    what: string,
    options: ErrorOptions & { readonly status?: number } = {},
  ) {
    super(`The proxy ${proxy} ${what}`, options);
    this.proxy = proxy;
    this.status = options.status;
  }
}

/**
 * Reads HTTP_PROXY and HTTPS_PROXY, in small letters first. "proxy.test:3128" means http, and https
 * goes the way of http where it has none of its own: so in undici, not in curl and Go.
 *
 * @throws when one of them is no URL; the message has no value, which may be a secret
 */
export function readProxies(env: NodeJS.ProcessEnv): Proxies {
  const http = readProxy(env, 'http_proxy');
  return { http, https: readProxy(env, 'https_proxy') ?? http };
}

/**
 * What a dispatcher needs so that failures of a proxy are told apart from those of what is behind
 * it, and so that a proxy that says nothing holds no connection for longer than it may.
 *
 * @param options.connectMs for the proxy's answer, the connection to it included; milliseconds
 */
export function proxyOptions(
  proxies: Proxies,
  options: { readonly connectMs: number; readonly pool: ConnectionPool.Options },
): EnvHttpProxyAgent.Options {
  const { connectMs, pool } = options;
  const { http, https } = proxies;
  return {
    ...(http === undefined ? {} : { httpProxy: http.href }),
    ...(https === undefined ? {} : { httpsProxy: https.href }),
    connectTimeout: connectMs,
    // To a proxy that leads elsewhere by CONNECT.
    clientFactory: (proxy, given) => tunnels(proxy, given, connectMs),
    // To a host; and to a proxy that is given whole requests, as for plain http.
    factory: (origin, given) =>
      http !== undefined && String(origin) === http.href
        ? new Pool(origin, { ...pool, ...named(given, http.host) })
        : new Pool(origin, given),
  };
}

/**
 * Where a proxy that was given a whole request, for plain http, wants credentials: undici has no
 * error of its own for it.
 *
 * @returns undefined for any other error
 */
export function refusedByProxy(error: unknown, { http }: Proxies): ProxyError | undefined {
  const isRefused =
    error instanceof errors.InvalidArgumentError &&
    error.message === 'Proxy Authentication Required (407)';
  if (!isRefused || http === undefined) return undefined;
  return new ProxyError(http.host, 'answers 407', { status: 407, cause: error });
}

function readProxy(env: NodeJS.ProcessEnv, name: string): URL | undefined {
  const value = env[name] ?? env[name.toUpperCase()] ?? '';
  if (value === '') return undefined;
  const text = value.includes('://') ? value : `http://${value}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^(https?|socks5?):$/.test(url.protocol)) {
    throw new Error(
      `${name.toUpperCase()} of the environment is no URL of a proxy, such as http://proxy:3128`,
    );
  }
  return url;
}

function tunnels(proxy: URL, given: object, connectMs: number): Dispatcher {
  const pool = new Pool(proxy, given);
  const connect = pool.connect.bind(pool);
  const open = async (parameters: Dispatcher.ConnectOptions): Promise<Dispatcher.ConnectData> => {
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new DOMException('no answer in time', 'TimeoutError')),
      connectMs,
    );
    try {
      const data = await connect({ ...parameters, signal: late.signal });
      if (data.statusCode === 200) return data;
      data.socket.on('error', () => undefined).destroy();
      const { statusCode: status } = data;
      throw new ProxyError(proxy.host, `answers ${status}`, { status });
    } catch (error) {
      throw asProxyError(error, proxy.host);
    } finally {
      clearTimeout(timer);
    }
  };
  return Object.assign(pool, { connect: open });
}

function named(given: object, proxy: string): { connect?: buildConnector.connector } {
  const { connect } = given as { connect?: buildConnector.connector };
  if (connect === undefined) return given;
  return {
    ...given,
    connect: (parameters, callback) =>
      connect(parameters, (...[error, socket]) => {
        if (error === null) callback(null, socket);
        else callback(asProxyError(error, proxy), null);
      }),
  };
}

function asProxyError(error: unknown, proxy: string): ProxyError {
  if (error instanceof ProxyError) return error;
  return new ProxyError(proxy, 'failed', { cause: error });
}
