import { createRequire } from 'node:module';
import type {
  Dispatcher,
  EnvHttpProxyAgent as ProxyAgent,
  Pool as ConnectionPool,
  errors as Errors,
} from 'undici';

const load = createRequire(import.meta.url);

/**
 * The part of undici that requests need. Its front door also loads fetch, WebSocket, caches and
 * mocks: more than two megabytes on every node, for nothing.
 */
const { prototype } = load('undici/lib/dispatcher/dispatcher.js') as typeof Dispatcher;
// As the front door does: without it a dispatcher has no request().
Object.assign(prototype, load('undici/lib/api/index.js') as object);

/** A client that keeps connections and follows HTTP(S)_PROXY and NO_PROXY. */
export const EnvHttpProxyAgent = load(
  'undici/lib/dispatcher/env-http-proxy-agent.js',
) as typeof ProxyAgent;

/** The connections to one host. */
export const Pool = load('undici/lib/dispatcher/pool.js') as typeof ConnectionPool;

/** What its requests are rejected with. */
export const errors = load('undici/lib/core/errors.js') as typeof Errors;
