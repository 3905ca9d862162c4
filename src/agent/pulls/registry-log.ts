import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { json } from 'node:stream/consumers';
import { VERSION_HEADER } from '../../oci/version-header.ts';
import { request } from '../../http/node-http.ts';

/** What the registry of this node remembers of the requests for a digest. */
export interface RegistryMemory {
  /** It was asked for the digest. */
  readonly isKnown: boolean;
  /** What it remembers begins then, milliseconds since the epoch; what came before is forgotten. */
  readonly sinceMs: number;
}

const TIMEOUT_MS = 3000;

/**
 * Whether Salvor answers where containerd asks the registry of this node.
 *
 * @param url of the registry, such as http://127.0.0.1:7480
 * @returns false also when something else answers there
 */
export async function isRegistryThere(
  url: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    const response = await get(new URL('/v2/', url), signal);
    response.destroy();
    return response.headers[VERSION_HEADER.toLowerCase()] !== undefined;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/**
 * Asks the registry of this node, on its admin port, whether containerd has asked for a digest.
 *
 * @param admin "host:port"
 * @throws when it does not answer, or is too old to say
 */
export async function askRegistryLog(
  admin: string,
  digest: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<RegistryMemory> {
  const url = new URL(`http://${admin}/decisions?about=${encodeURIComponent(digest)}`);
  const response = await get(url, signal);
  const { decisions, since } = (await json(response)) as {
    readonly decisions?: readonly unknown[];
    readonly since?: string;
  };
  const sinceMs = Date.parse(since ?? '');
  if (decisions === undefined || Number.isNaN(sinceMs)) {
    throw new Error(`Cannot learn from ${admin} what was asked for: status ${response.statusCode}`);
  }
  return { isKnown: decisions.length > 0, sinceMs };
}

/** An answer, its body not yet read; not by fetch, which would stay in memory (node-http.ts). */
async function get(url: URL, signal: AbortSignal): Promise<IncomingMessage> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const call = request(url, { agent: false, signal: limit }).end();
  // Whoever reads the answer is told; the call itself may fail after that.
  call.on('error', () => undefined);
  const [response] = (await once(call, 'response')) as [IncomingMessage];
  return response;
}
