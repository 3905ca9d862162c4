import { createHash } from 'node:crypto';
import { mkdir, open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';

// Knows nothing of Salvor's code: what it finds right is right.

const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');
const TIMEOUT_MS = 60_000;

/** One thing that was fetched and checked. */
export interface FetchedPart {
  readonly what: 'manifest' | 'config' | 'layer';
  readonly digest: string;
  readonly sizeBytes: number;
  /** The Salvor-Source header; empty when the registry itself answered. */
  readonly source: string;
}

interface Described {
  readonly digest: string;
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
}

/**
 * Pulls an image and recomputes every digest.
 *
 * @returns what was fetched, in order
 * @throws when anything cannot be had or is not what its digest says
 */
export async function pullImage(options: PullOptions): Promise<FetchedPart[]> {
  const parts: FetchedPart[] = [];
  const token: { value?: string } = {};
  const get = (path: string): Promise<Response> => request(options, path, token);
  const fetchManifest = async (reference: string): Promise<ManifestDocument> => {
    const answer = await get(`manifests/${reference}`);
    const bytes = Buffer.from(await answer.arrayBuffer());
    const digest = sha256(bytes);
    if (reference.startsWith('sha256:') && digest !== reference) {
      throw new Error(`Cannot trust ${reference}: its bytes have the digest ${digest}`);
    }
    await save(options.layout, digest, [bytes]);
    parts.push({ what: 'manifest', digest, sizeBytes: bytes.length, source: sourceOf(answer) });
    return JSON.parse(bytes.toString()) as ManifestDocument;
  };
  let manifest = await fetchManifest(options.reference);
  if (manifest.manifests !== undefined) {
    const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
    const child = manifest.manifests.find(
      ({ platform }) => platform?.architecture === architecture,
    );
    if (child === undefined) throw new Error(`Cannot find the platform linux/${architecture}`);
    manifest = await fetchManifest(child.digest);
  }
  const blobs = [
    ...(manifest.config === undefined ? [] : [{ what: 'config' as const, ...manifest.config }]),
    ...(manifest.layers ?? []).map((layer) => ({ what: 'layer' as const, ...layer })),
  ];
  for (const { what, digest } of blobs) {
    const answer = await get(`blobs/${digest}`);
    const sizeBytes = await save(options.layout, digest, answer.body ?? []);
    parts.push({ what, digest, sizeBytes, source: sourceOf(answer) });
  }
  return parts;
}

async function request(
  options: PullOptions,
  path: string,
  token: { value?: string },
): Promise<Response> {
  const url = new URL(`/v2/${options.repository}/${path}`, options.baseUrl);
  if (options.namespace !== undefined) url.searchParams.set('ns', options.namespace);
  const ask = (): Promise<Response> =>
    fetch(url, {
      headers: {
        accept: ACCEPT,
        ...(token.value === undefined ? {} : { authorization: `Bearer ${token.value}` }),
      },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  let answer = await ask();
  if (answer.status === 401) {
    token.value = await anonymousToken(answer.headers.get('www-authenticate') ?? '');
    answer = await ask();
  }
  if (!answer.ok) throw new Error(`Cannot get ${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

async function anonymousToken(challenge: string): Promise<string> {
  const parameter = (name: string): string =>
    new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? '';
  const realm = parameter('realm');
  if (realm === '') throw new Error('Cannot log in: only anonymous tokens are understood');
  const url = new URL(realm);
  for (const name of ['service', 'scope']) url.searchParams.set(name, parameter(name));
  const answer = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const body = (await answer.json()) as { token?: string; access_token?: string };
  return body.token ?? body.access_token ?? '';
}

async function save(
  layout: string | undefined,
  digest: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<number> {
  const hash = createHash('sha256');
  const path = layout === undefined ? undefined : join(layout, 'blobs', digest.replace(':', '/'));
  if (path !== undefined) await mkdir(dirname(path), { recursive: true });
  const file = path === undefined ? undefined : await open(`${path}.partial`, 'w');
  let sizeBytes = 0;
  try {
    for await (const chunk of chunks) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      await file?.write(chunk);
    }
  } finally {
    await file?.close();
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== digest)
    throw new Error(`Cannot trust ${digest}: its bytes have the digest ${found}`);
  if (path !== undefined) await rename(`${path}.partial`, path);
  return sizeBytes;
}

function sourceOf(answer: Response): string {
  return answer.headers.get('salvor-source') ?? '';
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
