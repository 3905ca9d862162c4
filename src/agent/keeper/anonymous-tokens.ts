import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Challenge } from '../../oci/challenge.ts';
import { isJsonObject } from '../../oci/descriptor.ts';
import { ForbiddenAddressError, type AddressGuard } from '../../policy/address-guard.ts';
import { request as httpRequest } from '../../http/node-http.ts';
import { FetchError } from './fetch-error.ts';
import type { Repository } from './wanted-blob.ts';

const timeoutMs = 10_000;
const maxAnswerBytes = 64 * 1024;

/** What may be dialled. */
type Guard = Pick<AddressGuard, 'checkHost' | 'lookup'>;

export interface AnonymousTokensDependencies {
  /** What may be dialled for a registry, as images name it. */
  readonly guardOf: (registry: string) => Guard;
}

/**
 * Gets the tokens that public registries hand to everyone, by the distribution project's token
 * authentication: a GET of the realm with service and scope, without credentials.
 */
export class AnonymousTokens {
  readonly #guardOf: AnonymousTokensDependencies['guardOf'];

  constructor(dependencies: AnonymousTokensDependencies) {
    this.#guardOf = dependencies.guardOf;
  }

  /**
   * @returns undefined when there is none to be had without credentials
   * @throws FetchError when the token service cannot, or must not, be asked, the signal's reason
   */
  async token(
    challenge: Challenge,
    { registry, repository }: Repository,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<string | undefined> {
    const { realm = '', service } = challenge.params;
    if (!URL.canParse(realm)) return undefined;
    const url = new URL(realm);
    if (!mayAsk(url, registry)) return undefined;
    if (service !== undefined) url.searchParams.set('service', service);
    url.searchParams.set('scope', `repository:${repository}:pull`);
    try {
      const all = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      const response = await ask(url, this.#guardOf(registry), all);
      // What breaks it off is seen by who reads it; afterwards it is nobody's concern.
      response.on('error', () => undefined);
      try {
        const { statusCode = 0 } = response;
        if (statusCode >= 200 && statusCode < 300) return readToken(await readText(response));
        // Redirects are not followed: the challenge named this place.
        const isNo = statusCode >= 400 && statusCode < 500 && statusCode !== 429;
        if (isNo) return undefined;
        throw new Error(`it answers ${statusCode}`);
      } finally {
        response.destroy();
      }
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      const message = `Cannot get a token from ${url.host}: ${reason}`;
      const kind = error instanceof ForbiddenAddressError ? 'needs_credentials' : 'upstream_down';
      throw new FetchError(kind, message, { cause: error });
    }
  }
}

/**
 * A challenge is the word of a server: it must not make this process, which stands on the node's own
 * network, ask what else is there. A certificate for the name, or the registry's own host, will do.
 */
function mayAsk({ protocol, hostname }: URL, registry: string): boolean {
  if (protocol === 'https:') return true;
  const host = registry.replace(/:\d+$/, '');
  return protocol === 'http:' && hostname === host;
}

async function ask(url: URL, guard: Guard, signal: AbortSignal): Promise<IncomingMessage> {
  // An address is not looked up.
  guard.checkHost(url.hostname);
  const options = {
    lookup: guard.lookup,
    headers: { accept: 'application/json', 'accept-encoding': 'identity' },
    agent: false,
    signal,
  };
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  request(url, options, resolve).on('error', reject).end();
  return promise;
}

async function readText(response: IncomingMessage): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of response as AsyncIterable<Uint8Array>) {
    sizeBytes += part.byteLength;
    if (sizeBytes > maxAnswerBytes) throw new Error('Cannot read a token: the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function readToken(text: string): string {
  const json: unknown = JSON.parse(text);
  if (!isJsonObject(json)) throw new Error('the answer is no object');
  const token = json['token'] ?? json['access_token'];
  // What does not fit into a header is no token.
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new Error('the answer has no token');
}
