import type { Descriptor, Platform } from '../../oci/descriptor.ts';
import { parseDigest, type Digest } from '../../oci/digest.ts';
import { manifestFor, MAX_MANIFEST_SIZE_BYTES, parseManifest } from '../../oci/manifest.ts';
import { mediaTypeEssence } from '../../oci/media-type.ts';
import { parseReference } from '../../oci/reference.ts';
import { DigestVerifier } from '../../oci/verifier.ts';
import type { Clock } from '../../telemetry/clock.ts';
import { ProofError, type ProofClient, type ProofQuestion } from './proof-client.ts';
import type { SharedPace } from './shared-pace.ts';

/** How deep indexes may lie in indexes. */
const MAX_DEPTH = 4;
/** Between attempts that contradict what is expected, milliseconds. */
const RETRY_MS = 500;

/** An image on one platform, and what is said of it. */
export interface ProofSubject {
  /** As Pods name it: "registry/repository:tag", "registry/repository@digest". */
  readonly image: string;
  readonly platform: Platform;
  /** The indexes and the manifest by which the report came to its config and layers. */
  readonly manifests: ReadonlySet<Digest>;
  /** The verdict that is put to the proof. */
  readonly isServable: boolean;
}

/** What pulling it came to. */
export interface SubjectProof {
  readonly isServable: boolean;
  /** What the registry says that it names, if it got so far. */
  readonly digest?: Digest;
  /** Why it cannot be pulled. */
  readonly reason?: string;
}

/** Why a node would not get a blob; undefined when it would. */
type BlobGap = string | undefined;

/** One attempt at an image. */
interface Pull {
  readonly manifests: ReadonlySet<Digest>;
  readonly place: Pick<ProofQuestion, 'registry' | 'repository' | 'platform'>;
  readonly signal: AbortSignal;
  /** What has failed before is tried again. */
  readonly isRetry: boolean;
}

interface NamedManifest {
  readonly digest: Digest;
  readonly mediaType: string | undefined;
  readonly sizeBytes: number;
}

/** Pulls images as a node that has nothing would, and keeps nothing of them. */
export class Prover {
  readonly #attempts: number;
  readonly #client: Pick<ProofClient, 'head' | 'get'>;
  readonly #pace: Pick<SharedPace, 'take'>;
  readonly #clock: Clock;
  /**
   * Configs and layers that were read, or are being read, by digest and size: each once, however
   * many images share it.
   */
  readonly #blobs = new Map<string, Promise<BlobGap>>();
  #readBytes = 0;
  #readBlobs = 0;

  /**
   * @param options.attempts how often an image is tried that should be there: nodes are busy at
   *   times, and kubelet tries again, too
   */
  constructor(
    options: { readonly attempts: number },
    dependencies: {
      client: Pick<ProofClient, 'head' | 'get'>;
      pace: Pick<SharedPace, 'take'>;
      clock: Clock;
    },
  ) {
    this.#attempts = options.attempts;
    this.#client = dependencies.client;
    this.#pace = dependencies.pace;
    this.#clock = dependencies.clock;
  }

  /** Bytes that were read and hashed so far, manifests included. */
  get readBytes(): number {
    return this.#readBytes;
  }

  /** Configs and layers that were read to their ends, each once. */
  get readBlobs(): number {
    return this.#readBlobs;
  }

  /**
   * Pulls an image: the tag, the index, the manifest, the config, every layer.
   *
   * @throws the signal's reason when it aborts; an error when the registry cannot be asked at all
   */
  async prove(subject: ProofSubject, signal: AbortSignal): Promise<SubjectProof> {
    for (let attempt = 1; ; attempt += 1) {
      const proof = await this.#pull(subject, { signal, isRetry: attempt > 1 });
      const isExpected = proof.isServable === subject.isServable;
      if (proof.isServable || isExpected || attempt >= this.#attempts) return proof;
      await this.#clock.sleep(RETRY_MS, { signal });
    }
  }

  async #pull(
    subject: ProofSubject,
    options: Pick<Pull, 'signal' | 'isRetry'>,
  ): Promise<SubjectProof> {
    const parsed = parseReference(subject.image);
    if (!parsed.ok) return { isServable: false, reason: `no name for a pull: ${parsed.reason}` };
    const { registry, repository, tag, digest } = parsed.value;
    const { manifests, platform } = subject;
    const pull: Pull = { ...options, manifests, place: { registry, repository, platform } };
    let found: Digest | undefined;
    try {
      const named = await this.#resolve(pull, digest ?? tag ?? '');
      found = named.digest;
      await this.#pullManifest(pull, named);
      return { isServable: true, digest: found };
    } catch (error) {
      if (!(error instanceof ProofError)) throw error;
      const reason = error.message;
      return { isServable: false, ...(found === undefined ? {} : { digest: found }), reason };
    }
  }

  async #resolve({ place, signal }: Pull, reference: string): Promise<NamedManifest> {
    const what = reference.includes(':') ? reference : `the tag ${reference}`;
    const question = { ...place, kind: 'manifests' as const, reference };
    const headers = await about(what, () => this.#client.head(question, signal));
    const digest = parseDigest(String(headers['docker-content-digest'] ?? ''));
    const sizeBytes = Number(headers['content-length'] ?? 0);
    if (!digest.ok || sizeBytes === 0)
      throw new ProofError(`${what}: the answer does not describe it`);
    return {
      digest: digest.value,
      mediaType: mediaTypeEssence(headers['content-type']),
      sizeBytes,
    };
  }

  async #pullManifest(pull: Pull, named: NamedManifest, depth = 0): Promise<void> {
    const { digest, mediaType } = named;
    const bytes = await about(`manifest ${digest}`, () => this.#readManifest(pull, named));
    const manifest = parseManifest(bytes, mediaType);
    if (!manifest.ok) throw new ProofError(`manifest ${digest}: ${manifest.reason}`);
    if (manifest.value.kind === 'index') {
      const child =
        manifest.value.manifests.find((entry) => pull.manifests.has(entry.digest)) ??
        manifestFor(manifest.value, pull.place.platform);
      if (child === undefined) throw new ProofError(`index ${digest}: nothing for this platform`);
      if (depth === MAX_DEPTH) throw new ProofError(`index ${digest}: too deep`);
      await this.#pullManifest(pull, child, depth + 1);
      return;
    }
    const { config, layers } = manifest.value;
    if (config !== undefined) await this.#needBlob(pull, config, 'config');
    for (const layer of layers) await this.#needBlob(pull, layer, 'layer');
  }

  async #readManifest({ place, signal }: Pull, named: NamedManifest): Promise<Buffer> {
    const { digest, sizeBytes } = named;
    if (sizeBytes > MAX_MANIFEST_SIZE_BYTES) throw new ProofError('it is too big for a manifest');
    const question = { ...place, kind: 'manifests' as const, reference: digest };
    const parts: Buffer[] = [];
    await this.#read(
      question,
      { digest, sizeBytes },
      { signal, onChunk: (part) => parts.push(part) },
    );
    return Buffer.concat(parts);
  }

  async #needBlob(pull: Pull, blob: Descriptor, role: 'config' | 'layer'): Promise<void> {
    const key = `${blob.digest} ${blob.sizeBytes}`;
    let reading = this.#blobs.get(key);
    const isDoubted = pull.isRetry && reading !== undefined && (await reading) !== undefined;
    if (reading === undefined || isDoubted) {
      reading = this.#readBlob(pull, blob);
      this.#blobs.set(key, reading);
    }
    const gap = await reading;
    if (gap !== undefined) throw new ProofError(`${role} ${blob.digest}: ${gap}`);
  }

  async #readBlob({ place, signal }: Pull, blob: Descriptor): Promise<BlobGap> {
    const question = { ...place, kind: 'blobs' as const, reference: blob.digest };
    try {
      await this.#read(question, blob, { signal });
      this.#readBlobs += 1;
      return undefined;
    } catch (error) {
      if (error instanceof ProofError) return error.message;
      throw error;
    }
  }

  async #read(
    question: ProofQuestion,
    wanted: { readonly digest: Digest; readonly sizeBytes: number },
    options: { readonly signal: AbortSignal; readonly onChunk?: (chunk: Buffer) => unknown },
  ): Promise<void> {
    const { signal, onChunk } = options;
    const { cancel, headers, chunks } = await this.#client.get(question, signal);
    const { digest, sizeBytes } = wanted;
    const verifier = new DigestVerifier(digest);
    try {
      const promised = Number(headers['content-length'] ?? -1);
      if (promised !== sizeBytes) {
        throw new ProofError(`has ${promised} bytes instead of ${sizeBytes}`);
      }
      for await (const chunk of chunks) {
        this.#readBytes += chunk.length;
        verifier.update(chunk);
        onChunk?.(chunk);
        await this.#pace.take(chunk.length, { signal });
      }
    } finally {
      cancel();
    }
    if (verifier.receivedBytes !== sizeBytes) {
      throw new ProofError(`ended after ${verifier.receivedBytes} of ${sizeBytes} bytes`);
    }
    if (!verifier.matches()) throw new ProofError('has bytes that its digest does not name');
  }
}

/** Puts what it is about before the reason. */
async function about<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ProofError)) throw error;
    throw new ProofError(`${what}: ${error.message}`, { cause: error });
  }
}
