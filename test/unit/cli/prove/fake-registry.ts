import type { IncomingHttpHeaders } from 'node:http';
import {
  ProofError,
  type ProofAnswer,
  type ProofQuestion,
} from '../../../../src/cli/prove/proof-client.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';

/** Something that a registry has. */
interface Entry {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

interface Described {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly size: number;
}

/** A registry in this process that answers a prover, and can be made to answer badly. */
export class FakeRegistry {
  readonly #entries = new Map<string, Entry>();
  /** What was asked, in order: "HEAD manifests/v1", "GET blobs/sha256:…". */
  readonly asked: string[] = [];
  readonly platforms = new Set<string>();
  /** What is sent instead of what the digest names. */
  readonly sends = new Map<string, Buffer>();
  /** How often something is not there before it is. */
  readonly absences = new Map<string, number>();
  /** Answers that were let go of. */
  cancelled = 0;

  add(bytes: Buffer | object, mediaType: string = MEDIA_TYPE.octetStream): Described {
    const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(JSON.stringify(bytes));
    const digest = digestOf(buffer);
    this.#entries.set(digest, { bytes: buffer, mediaType });
    return { digest, mediaType, size: buffer.length };
  }

  /** An image whose layers are these bytes. */
  addImage(...layers: readonly Buffer[]): Described {
    const mediaType = MEDIA_TYPE.ociManifest;
    const config = this.add({ layers: layers.length, first: layers[0]?.toString() });
    const manifest = {
      schemaVersion: 2,
      mediaType,
      config,
      layers: layers.map((l) => this.add(l)),
    };
    return this.add(manifest, mediaType);
  }

  tag(name: string, { digest }: Pick<Described, 'digest'>): void {
    const entry = this.#entries.get(digest);
    if (entry !== undefined) this.#entries.set(name, entry);
  }

  remove(digest: string): void {
    this.#entries.delete(digest);
  }

  async head(question: ProofQuestion, signal: AbortSignal): Promise<IncomingHttpHeaders> {
    return this.#answer('HEAD', question, signal).headers;
  }

  async get(question: ProofQuestion, signal: AbortSignal): Promise<ProofAnswer> {
    const { bytes, headers } = this.#answer('GET', question, signal);
    return { headers, chunks: halves(bytes), cancel: () => void (this.cancelled += 1) };
  }

  #answer(
    method: string,
    { kind, platform, reference }: ProofQuestion,
    signal: AbortSignal,
  ): { headers: IncomingHttpHeaders; bytes: Buffer } {
    signal.throwIfAborted();
    this.asked.push(`${method} ${kind}/${reference}`);
    this.platforms.add(`${platform.os}/${platform.architecture}`);
    const absences = this.absences.get(reference) ?? 0;
    this.absences.set(reference, absences - 1);
    const entry = this.#entries.get(reference);
    if (entry === undefined || absences > 0) throw new ProofError('nobody has it');
    const headers = {
      'content-type': entry.mediaType,
      'content-length': String(entry.bytes.length),
      'docker-content-digest': digestOf(entry.bytes),
    };
    return { headers, bytes: this.sends.get(reference) ?? entry.bytes };
  }
}

async function* halves(bytes: Buffer): AsyncGenerator<Buffer> {
  const middle = Math.floor(bytes.length / 2);
  yield bytes.subarray(0, middle);
  yield bytes.subarray(middle);
}
