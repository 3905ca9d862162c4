// tsyringe, which the certificate library stands on, wants it loaded first.
import 'reflect-metadata';
import { KeyObject, createPublicKey, hash, randomUUID, sign, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { X509CertificateGenerator, cryptoProvider } from '@peculiar/x509';
import { freePort } from './ports.ts';
import type { TestScope } from './test-scope.ts';

const algorithm = {
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  publicExponent: new Uint8Array([1, 0, 1]),
  modulusLength: 2048,
};
const tokenLifetimeSeconds = 300;
const maxFormBytes = 64 * 1024;
const issuer = 'salvor test tokens';
const service = 'salvor test registry';

/** Who may pull what. */
export interface TokenServerOptions {
  /** Passwords by user. Users may pull everything. */
  readonly users?: Readonly<Record<string, string>>;
  /** Repositories that anyone may pull; all unless told. */
  readonly publicRepositories?: readonly string[];
}

/** One request for a token. */
export interface TokenRequest {
  readonly method: string;
  /** undefined: anonymous. */
  readonly user: string | undefined;
  readonly scopes: readonly string[];
  readonly status: number;
}

interface Grant {
  readonly type: string;
  readonly name: string;
  readonly actions: string[];
}

/**
 * The token service of a registry, as the distribution project specifies it: Bearer tokens for a
 * GET with Basic credentials or none, and for a POST with grant_type=password.
 */
export class TokenServer {
  readonly port: number;
  readonly realm: string;
  /** What docker-registry needs to trust its tokens: the `auth` option of startDockerRegistry. */
  readonly registryAuth: {
    readonly realm: string;
    readonly service: string;
    readonly issuer: string;
    readonly rootCertificate: string;
  };
  /** Every request so far. */
  readonly requests: TokenRequest[] = [];
  readonly #options: TokenServerOptions;
  readonly #key: KeyObject;
  readonly #certificate: string;
  #server: Server | undefined;

  private constructor(
    options: TokenServerOptions,
    parts: { port: number; key: KeyObject; certificate: string; certificatePath: string },
  ) {
    this.#options = options;
    this.#key = parts.key;
    this.#certificate = parts.certificate;
    this.port = parts.port;
    this.realm = `http://127.0.0.1:${parts.port}/token`;
    this.registryAuth = {
      realm: this.realm,
      service,
      issuer,
      rootCertificate: parts.certificatePath,
    };
  }

  /** Starts a server that ends with the scope. */
  static async start(scope: TestScope, options: TokenServerOptions = {}): Promise<TokenServer> {
    cryptoProvider.set(crypto);
    const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
    const certificate = await X509CertificateGenerator.createSelfSigned({
      name: 'CN=Salvor test tokens',
      notBefore: new Date(Date.now() - 3_600_000),
      notAfter: new Date(Date.now() + 86_400_000),
      signingAlgorithm: algorithm,
      keys,
    });
    const certificatePath = join(scope.directory, `token-${randomUUID()}.pem`);
    await writeFile(certificatePath, certificate.toString('pem'));
    const tokens = new TokenServer(options, {
      port: await freePort(),
      key: KeyObject.from(keys.privateKey),
      certificate: certificate.toString('base64'),
      certificatePath,
    });
    const server = createServer((request, response) => {
      void tokens.#answer(request, response).catch(() => response.destroy());
    });
    server.listen({ host: '127.0.0.1', port: tokens.port });
    await once(server, 'listening');
    tokens.#server = server;
    scope.defer(() => tokens.stop());
    return tokens;
  }

  /** Refuses connections from now on. A second call does nothing. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    const closed = once(server, 'close');
    server.close();
    await closed;
  }

  /**
   * Makes a token without asking anyone, for instance to push.
   *
   * @param scopes such as "repository:team/app:pull,push"
   * @returns the value of an Authorization header
   */
  authorization(scopes: readonly string[]): string {
    return `Bearer ${this.#issue('salvor test', scopes.flatMap(parseScope))}`;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.realm);
    const form = request.method === 'POST' ? await readForm(request) : undefined;
    const scopes = (form ?? url.searchParams).getAll('scope').flatMap((scope) => scope.split(' '));
    const { user, password } = form
      ? { user: form.get('username') ?? undefined, password: form.get('password') ?? '' }
      : basicCredentials(request.headers.authorization);
    const isKnown = user === undefined || this.#options.users?.[user] === password;
    const status = isKnown ? 200 : 401;
    this.requests.push({ method: request.method ?? '', user, scopes, status });
    const grants = scopes.flatMap(parseScope).map((grant) => this.#reduce(grant, user));
    const token = this.#issue(user ?? '', grants);
    const body = isKnown
      ? { token, access_token: token, expires_in: tokenLifetimeSeconds }
      : { errors: [{ code: 'UNAUTHORIZED', message: 'Wrong user or password' }] };
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  }

  #reduce(grant: Grant, user: string | undefined): Grant {
    const isPublic = this.#options.publicRepositories?.includes(grant.name) ?? true;
    const actions = grant.actions.filter((action) => action === 'pull');
    return { ...grant, actions: user !== undefined || isPublic ? actions : [] };
  }

  #issue(subject: string, access: readonly Grant[]): string {
    const now = Math.floor(Date.now() / 1000);
    const header = { typ: 'JWT', alg: 'RS256', kid: keyId(this.#key), x5c: [this.#certificate] };
    const claims = {
      iss: issuer,
      sub: subject,
      aud: service,
      exp: now + tokenLifetimeSeconds,
      nbf: now - 60,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const content = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    const signature = sign('sha256', Buffer.from(content), this.#key).toString('base64url');
    return `${content}.${signature}`;
  }
}

/** Starts a token server that ends with the scope. */
export async function startTokenServer(
  scope: TestScope,
  options: TokenServerOptions = {},
): Promise<TokenServer> {
  return TokenServer.start(scope, options);
}

function parseScope(scope: string): Grant[] {
  const match = /^(\w+):(.+):([\w,*]+)$/.exec(scope);
  if (match === null) return [];
  return [{ type: match[1]!, name: match[2]!, actions: match[3]!.split(',') }];
}

function basicCredentials(authorization: string | undefined): {
  user: string | undefined;
  password: string;
} {
  const encoded = /^Basic (.+)$/i.exec(authorization ?? '')?.[1];
  if (encoded === undefined) return { user: undefined, password: '' };
  const [user, ...password] = Buffer.from(encoded, 'base64').toString('utf8').split(':');
  return { user: user ?? '', password: password.join(':') };
}

async function readForm(request: IncomingMessage): Promise<URLSearchParams> {
  if (Number(request.headers['content-length'] ?? 0) > maxFormBytes) {
    throw new Error('Cannot read the form: it is too big');
  }
  return new URLSearchParams(await text(request));
}

/** The key id of the older libtrust library: base32 of half a hash, in groups of four. */
function keyId(key: KeyObject): string {
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const half = new Uint8Array(hash('sha256', der, 'buffer')).subarray(0, 30);
  return (base32(half).match(/.{4}/g) ?? []).join(':');
}

function base32(bytes: Uint8Array): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return (bits.match(/.{5}/g) ?? []).map((five) => alphabet[Number.parseInt(five, 2)]).join('');
}
