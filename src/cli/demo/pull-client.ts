import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, rename } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { machineArchitecture } from './platform.ts';

// Shares no code with what it checks: Node's own HTTP client, and digests computed here.

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');
const IDLE_TIMEOUT_MS = 30_000;
const MAX_DOCUMENT_BYTES = 8 * 1024 * 1024;

interface Described {
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

interface ManifestDocument {
  readonly manifests?: readonly Described[];
  readonly config?: Described;
  readonly layers?: readonly Described[];
}

export interface PullOptions {
  /** "http://127.0.0.1:port": a registry or a mirror of one. */
  readonly baseUrl: string;
  /** The registry that is meant, where a mirror is asked. */
  readonly namespace?: string;
  readonly repository: string;
  /** A tag or a digest. */
  readonly reference: string;
  /** An OCI image layout that takes the blobs. */
  readonly layout?: string;
  readonly signal: AbortSignal;
}

/**
 * Pulls an image for this machine as containerd does: what the tag names, then everything by its
 * digest. Recomputes every digest.
 *
 * @returns the digest that the reference names, and what Salvor-Source said of each digest
 * @throws when anything cannot be had or is not what its digest says
 */
export async function pullImage(
  options: PullOptions,
): Promise<{ readonly root: string; readonly sources: ReadonlyMap<string, string> }> {
  const session = new Session(options);
  const root = await session.resolve(options.reference);
  let manifest = await session.document(root);
  if (manifest.manifests !== undefined) {
    const architecture = machineArchitecture();
    const child = manifest.manifests.find(
      ({ platform }) => platform?.os === 'linux' && platform.architecture === architecture,
    );
    if (child === undefined) throw new Error(`Cannot find the platform linux/${architecture}`);
    manifest = await session.document(child.digest);
  }
  const blobs = [...(manifest.config ? [manifest.config] : []), ...(manifest.layers ?? [])];
  for (const blob of blobs) {
    if (!session.sources.has(blob.digest)) await session.blob(blob);
  }
  return { root, sources: session.sources };
}

class Session {
  readonly sources = new Map<string, string>();
  readonly #options: PullOptions;
  #token: string | undefined;

  constructor(options: PullOptions) {
    this.#options = options;
  }

  /** What a tag names at this moment. */
  async resolve(reference: string): Promise<string> {
    const answer = await this.#request('HEAD', `manifests/${reference}`);
    answer.resume();
    const digest = answer.headers['docker-content-digest'];
    if (typeof digest !== 'string') throw new Error(`Cannot resolve ${reference}: no digest`);
    if (reference.includes(':') && reference !== digest) {
      throw new Error(`Cannot trust ${reference}: it is said to be ${digest}`);
    }
    return digest;
  }

  async document(digest: string): Promise<ManifestDocument> {
    const answer = await this.#request('GET', `manifests/${digest}`);
    const chunks: Buffer[] = [];
    await this.#take(digest, answer, (chunk) => {
      chunks.push(chunk);
      const sizeBytes = chunks.reduce((sum, { length }) => sum + length, 0);
      if (sizeBytes > MAX_DOCUMENT_BYTES) throw new Error(`Cannot read ${digest}: it is too long`);
    });
    return JSON.parse(Buffer.concat(chunks).toString()) as ManifestDocument;
  }

  async blob({ digest, size }: Described): Promise<void> {
    const answer = await this.#request('GET', `blobs/${digest}`);
    const sizeBytes = await this.#take(digest, answer, () => undefined);
    if (sizeBytes !== size) throw new Error(`Cannot trust ${digest}: it has ${sizeBytes} bytes`);
  }

  /** Hashes a body, and keeps it where there is a layout. */
  async #take(
    digest: string,
    answer: IncomingMessage,
    look: (chunk: Buffer) => void,
  ): Promise<number> {
    const { layout } = this.#options;
    const temporary = layout === undefined ? undefined : join(layout, 'ingest', randomUUID());
    const file = temporary === undefined ? undefined : await open(temporary, 'wx');
    const hash = createHash('sha256');
    let sizeBytes = 0;
    try {
      for await (const chunk of answer as AsyncIterable<Buffer>) {
        look(chunk);
        hash.update(chunk);
        sizeBytes += chunk.length;
        await file?.write(chunk);
      }
    } finally {
      await file?.close();
    }
    const found = `sha256:${hash.digest('hex')}`;
    if (found !== digest) {
      throw new Error(`Cannot trust ${digest}: its bytes have the digest ${found}`);
    }
    if (layout !== undefined && temporary !== undefined) {
      const directory = join(layout, 'blobs', 'sha256');
      await mkdir(directory, { recursive: true });
      await rename(temporary, join(directory, digest.slice('sha256:'.length)));
    }
    this.sources.set(digest, String(answer.headers['salvor-source'] ?? ''));
    return sizeBytes;
  }

  async #request(method: 'GET' | 'HEAD', path: string): Promise<IncomingMessage> {
    const { baseUrl, repository, namespace, signal } = this.#options;
    const url = new URL(`/v2/${repository}/${path}`, baseUrl);
    if (namespace !== undefined) url.searchParams.set('ns', namespace);
    const ask = (): Promise<IncomingMessage> =>
      exchange(url, {
        method,
        headers: {
          accept: ACCEPT,
          ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        },
        signal,
      });
    let answer = await ask();
    if (answer.statusCode === 401 && this.#token === undefined) {
      answer.resume();
      this.#token = await anonymousToken(answer.headers['www-authenticate'] ?? '', signal);
      answer = await ask();
    }
    if (answer.statusCode !== 200) {
      const words = (await readText(answer)).slice(0, 300);
      throw new Error(`Cannot get ${path}: ${answer.statusCode} ${words}`.trim());
    }
    return answer;
  }
}

async function anonymousToken(challenge: string, signal: AbortSignal): Promise<string> {
  const parameter = (name: string): string =>
    new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? '';
  const realm = parameter('realm');
  if (!/^bearer /i.test(challenge) || realm === '') {
    throw new Error('Cannot log in: the demo pulls only what needs no credentials');
  }
  const url = new URL(realm);
  for (const name of ['service', 'scope']) url.searchParams.set(name, parameter(name));
  const answer = await exchange(url, { method: 'GET', headers: {}, signal });
  const body = JSON.parse(await readText(answer)) as { token?: string; access_token?: string };
  return body.token ?? body.access_token ?? '';
}

function exchange(
  url: URL,
  options: { method: string; headers: Record<string, string>; signal: AbortSignal },
): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { ...options, agent: false }, resolve);
    outgoing.once('error', reject);
    outgoing.setTimeout(IDLE_TIMEOUT_MS, () => {
      outgoing.destroy(new Error(`Cannot go on: not a byte for ${IDLE_TIMEOUT_MS / 1000} s`));
    });
    outgoing.end();
  });
}

async function readText(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
