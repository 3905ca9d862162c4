import type { Challenge } from '../../oci/challenge.ts';
import { isJsonObject } from '../../oci/descriptor.ts';
import { FetchError } from './fetch-error.ts';
import type { Repository } from './wanted-blob.ts';

const timeoutMs = 10_000;
const maxAnswerBytes = 64 * 1024;

/**
 * Gets the tokens that public registries hand to everyone, by the distribution project's token
 * authentication: a GET of the realm with service and scope, without credentials.
 */
export class AnonymousTokens {
  /**
   * @returns undefined when there is none to be had without credentials
   * @throws FetchError when the token service cannot be asked, the signal's reason
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
      const response = await fetch(url, {
        redirect: 'error',
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      });
      if (response.ok) return readToken(await readText(response));
      await response.body?.cancel();
      if (response.status < 500 && response.status !== 429) return undefined;
      throw new Error(`it answers ${response.status}`);
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      const message = `Cannot get a token from ${url.host}: ${reason}`;
      throw new FetchError('upstream_down', message, { cause: error });
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

async function readText(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of (response.body ?? []) as AsyncIterable<Uint8Array>) {
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
