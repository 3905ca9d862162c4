import type { IncomingMessage } from 'node:http';
import type { Digest } from '../../oci/digest.ts';
import { parseChallenges, type Challenge } from '../../oci/challenge.ts';
import { MANIFEST_ACCEPT } from '../../oci/media-type.ts';
import { request as httpRequest } from '../../http/node-http.ts';
import { splitAddress } from '../../rpc/address.ts';
import type { AnonymousTokens } from './anonymous-tokens.ts';
import type { OpenedBytes } from './opened-bytes.ts';
import { FetchError } from './fetch-error.ts';
import type { Repository } from './wanted-blob.ts';

export interface RegistryBlobsOptions {
  /** "host:port" of the registry on this node. */
  readonly address: string;
  /** How long it may take until the headers of an answer, milliseconds. */
  readonly headersMs: number;
}

/** What is asked for, and from where on. */
export interface RegistryRequest extends Repository {
  readonly digest: Digest;
  readonly isManifest: boolean;
  readonly offsetBytes: number;
}

/**
 * Upstreams as sources of content, asked through the registry on this node, so that its policy,
 * its endpoints and what it knows of their health hold here, too. Asks without credentials, as
 * anyone may; where that is not enough, it says so.
 *
 * OCI distribution specification 1.1, "Pulling blobs"; ranges by RFC 9110, 14.
 */
export class RegistryBlobs {
  readonly #host: string;
  readonly #port: number;
  readonly #headersMs: number;
  readonly #tokens: Pick<AnonymousTokens, 'token'>;

  constructor(
    options: RegistryBlobsOptions,
    dependencies: { tokens: Pick<AnonymousTokens, 'token'> },
  ) {
    const { host, port } = splitAddress(options.address);
    this.#host = dialled(host);
    this.#port = port;
    this.#headersMs = options.headersMs;
    this.#tokens = dependencies.tokens;
  }

  /**
   * Opens the bytes from an offset to the end.
   *
   * @throws FetchError when the answer is no, or does not fit what was asked; the signal's reason
   */
  async open(
    request: RegistryRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<OpenedBytes> {
    let response = await this.#ask(request, { signal });
    const challenge = bearerChallenge(response);
    if (challenge !== undefined) {
      response.destroy();
      const token = await this.#tokens.token(challenge, request, { signal });
      if (token === undefined) throw refusal(request, 401);
      response = await this.#ask(request, { signal, token });
    }
    try {
      return bodyOf(response, request);
    } catch (error) {
      response.destroy();
      throw error;
    }
  }

  async #ask(
    request: RegistryRequest,
    options: { readonly signal: AbortSignal; readonly token?: string },
  ): Promise<IncomingMessage> {
    const { registry, repository, digest, isManifest, offsetBytes } = request;
    const kind = isManifest ? 'manifests' : 'blobs';
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (isManifest) headers['accept'] = MANIFEST_ACCEPT;
    if (offsetBytes > 0) headers['range'] = `bytes=${offsetBytes}-`;
    if (options.token !== undefined) headers['authorization'] = `Bearer ${options.token}`;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const call = httpRequest(
      {
        host: this.#host,
        port: this.#port,
        path: `/v2/${repository}/${kind}/${digest}?ns=${encodeURIComponent(registry)}`,
        headers,
        agent: false,
        signal: options.signal,
      },
      resolve,
    );
    const late = new Error(`no answer within ${this.#headersMs} ms`);
    const timer = setTimeout(() => call.destroy(late), this.#headersMs);
    call.on('error', reject);
    call.end();
    try {
      return await promise;
    } catch (error) {
      options.signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      const message = `Cannot ask the registry on this node for ${digest}: ${reason}`;
      throw new FetchError('upstream_down', message, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** An address to listen on for all is no address to dial. */
function dialled(host: string): string {
  if (host === '0.0.0.0' || host === '') return '127.0.0.1';
  return host === '::' ? '::1' : host;
}

function bearerChallenge({ statusCode, headers }: IncomingMessage): Challenge | undefined {
  if (statusCode !== 401) return undefined;
  const challenges = parseChallenges(headers['www-authenticate']);
  return challenges.find(({ scheme }) => scheme.toLowerCase() === 'bearer');
}

function bodyOf(response: IncomingMessage, request: RegistryRequest): OpenedBytes {
  const { statusCode = 0, headers } = response;
  const { offsetBytes, digest } = request;
  if (statusCode !== (offsetBytes > 0 ? 206 : 200)) throw refusal(request, statusCode);
  const length = headers['content-length'];
  let sizeBytes = length === undefined ? undefined : Number(length);
  if (offsetBytes > 0) {
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers['content-range'] ?? '');
    if (Number(range?.[1]) !== offsetBytes) {
      throw new FetchError('upstream_down', `Cannot go on with ${digest}: a wrong range came back`);
    }
    sizeBytes = Number(range?.[2]);
  }
  // What breaks it off is seen by the iteration; afterwards it is nobody's concern.
  response.on('error', () => undefined);
  return {
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    chunks: response as AsyncIterable<Uint8Array>,
    cancel: () => response.destroy(),
  };
}

function refusal(request: RegistryRequest, status: number): FetchError {
  const { digest, registry, repository } = request;
  const what = `Cannot fetch ${digest} from ${registry}/${repository}`;
  switch (status) {
    case 401:
    case 403:
      return new FetchError('needs_credentials', `${what}: it needs credentials (${status})`);
    case 404:
      return new FetchError('nowhere', `${what}: neither the upstream nor a node has it`);
    default:
      return new FetchError('upstream_down', `${what}: the registry answers ${status}`);
  }
}
