import {
  formatContentRange,
  formatUnsatisfiedContentRange,
  parseByteRange,
  resolveByteRange,
} from '../../oci/byte-range.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Manifest } from '../../oci/manifest.ts';
import { MEDIA_TYPE } from '../../oci/media-type.ts';
import { MAX_MANIFEST_SIZE_BYTES } from '../../oci/manifest.ts';
import type { ManifestReference, V2Request } from '../../oci/path.ts';
import { tagName } from '../../oci/reference.ts';
import { OBSERVED_AT_HEADER } from '../../http/salvor-headers.ts';
import { ociErrorAnswer, type OciError, type WireAnswer } from '../../http/wire-answer.ts';
import { newestTag } from '../../policy/newest-tag.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { HeldContent } from '../held-content.ts';
import { readWhole } from '../read-blob.ts';
import type { BlobBody } from './blob-body.ts';
import type { BootstrapResult } from './bootstrap-metrics.ts';
import type { BootstrapRules } from './bootstrap-rules.ts';
import type { RepositoryContent, RepositoryContents } from './repository-contents.ts';

/** Who reports what this node finds of itself. */
export const OWN_FINDINGS = 'this node';

/** What a client gets: the body is there in full, or is sent from the store and then closed. */
export interface BootstrapAnswer extends WireAnswer {
  readonly body?: Buffer | BlobBody;
  readonly result: BootstrapResult;
}

/** One request, as far as content is concerned. */
export interface ContentRequest {
  readonly asked: V2Request;
  readonly isHead: boolean;
  readonly range: string | undefined;
  readonly signal: AbortSignal;
}

interface Place {
  readonly registry: string;
  readonly repository: string;
  /** "registry/repository" */
  readonly name: string;
}

/**
 * Answers from this node's own store alone: nobody else is asked. What may not be read and what is
 * not there look the same from outside, so that nobody learns which images a node has.
 */
export class BootstrapContent {
  readonly #content: Pick<HeldContent, 'open' | 'reportCorrupt' | 'resolve' | 'stat'>;
  readonly #repositories: Pick<RepositoryContents, 'of' | 'take'>;
  readonly #clock: Clock;
  #rules: BootstrapRules;

  constructor(
    options: { readonly rules: BootstrapRules },
    dependencies: {
      content: Pick<HeldContent, 'open' | 'reportCorrupt' | 'resolve' | 'stat'>;
      repositories: Pick<RepositoryContents, 'of' | 'take'>;
      clock: Clock;
    },
  ) {
    this.#rules = options.rules;
    this.#content = dependencies.content;
    this.#repositories = dependencies.repositories;
    this.#clock = dependencies.clock;
  }

  /** Counts for requests that come from now on. */
  take(rules: BootstrapRules): void {
    this.#rules = rules;
    this.#repositories.take(rules);
  }

  /**
   * @throws StoreUnavailableError, or whatever keeps the store from being read
   */
  async answer(request: ContentRequest): Promise<BootstrapAnswer> {
    const { asked } = request;
    const { target } = asked;
    if (target.kind === 'base') return jsonAnswer();
    if (target.kind !== 'manifest' && target.kind !== 'blob') {
      const message = 'Only manifests and blobs can be read here';
      return errorAnswer(404, { code: 'UNSUPPORTED', message }, 'unsupported');
    }
    const registry = asked.ns ?? asked.registry;
    if (registry === undefined) {
      const message = 'No registry is named: pass ns=, or put the registry first in the path';
      return errorAnswer(404, { code: 'NAME_UNKNOWN', message }, 'not_allowed');
    }
    const { repository } = target;
    const place = { registry, repository, name: `${registry}/${repository}` };
    const rules = this.#rules;
    const content = rules.mayRead(registry, repository)
      ? await this.#repositories.of(place.name, (known) =>
          target.kind === 'blob'
            ? known.blobs.has(target.digest) || known.manifests.has(target.digest)
            : target.reference.digest !== undefined && known.manifests.has(target.reference.digest),
        )
      : undefined;
    if (content === undefined) {
      const message = `Nothing of ${place.name} can be read here`;
      return errorAnswer(404, { code: 'NAME_UNKNOWN', message }, 'not_allowed');
    }
    return target.kind === 'blob'
      ? this.#blob(target.digest, content, request)
      : this.#manifest(place, target.reference, { content, request, rules });
  }

  async #manifest(
    place: Place,
    reference: ManifestReference,
    context: {
      readonly content: RepositoryContent;
      readonly request: ContentRequest;
      readonly rules: BootstrapRules;
    },
  ): Promise<BootstrapAnswer> {
    const { content, request } = context;
    const what = reference.digest ?? `${place.name}:${reference.tag}`;
    const missing = errorAnswer(
      404,
      { code: 'MANIFEST_UNKNOWN', message: `This node does not have ${what}` },
      'missing',
    );
    const named =
      reference.digest === undefined
        ? await this.#digestOf(place, reference.tag, context)
        : { digest: reference.digest };
    if (named === undefined) return missing;
    const manifest = content.manifests.get(named.digest);
    const bytes = manifest && (await this.#manifestBytes(named.digest, request.signal));
    if (manifest === undefined || bytes === undefined) return missing;
    const { observedAtMs } = named;
    return {
      status: 200,
      headers: {
        ...headersOf(named.digest, manifest.mediaType, bytes.length),
        ...(observedAtMs === undefined
          ? {}
          : { [OBSERVED_AT_HEADER]: new Date(observedAtMs).toISOString() }),
      },
      body: bytes,
      result: 'manifest',
    };
  }

  /** By the newest statement that this node has; never an older digest instead. */
  async #digestOf(
    place: Place,
    tag: string,
    context: {
      readonly content: RepositoryContent;
      readonly request: ContentRequest;
      readonly rules: BootstrapRules;
    },
  ): Promise<{ digest: Digest; observedAtMs?: number } | undefined> {
    const { content, request, rules } = context;
    const { signal } = request;
    const known = await this.#content.resolve(tagName(place.registry, place.repository, tag), {
      signal,
    });
    const nowMs = this.#clock.now();
    const newest = newestTag([known], nowMs);
    if (newest === undefined) return undefined;
    const { digest, observedAtMs } = newest;
    const agoMs = observedAtMs === undefined ? undefined : nowMs - observedAtMs;
    if (!rules.mayTellTag(place, agoMs)) return undefined;
    const manifest = content.manifests.get(digest);
    if (manifest === undefined || !(await this.#canStart(manifest, content, signal))) {
      return undefined;
    }
    return { digest, ...(observedAtMs === undefined ? {} : { observedAtMs }) };
  }

  /** Whether some platform's image has its config here; layers may come from another node. */
  async #canStart(
    manifest: Manifest,
    content: RepositoryContent,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (manifest.kind === 'image') {
      const { config } = manifest;
      return (
        config === undefined || (await this.#content.stat(config.digest, { signal })) !== undefined
      );
    }
    for (const { digest } of manifest.manifests) {
      const child = content.manifests.get(digest);
      if (child !== undefined && (await this.#canStart(child, content, signal))) return true;
    }
    return false;
  }

  async #manifestBytes(digest: Digest, signal: AbortSignal): Promise<Buffer | undefined> {
    const opened = await this.#content.open(digest, { signal });
    if (opened === undefined) return undefined;
    try {
      if (opened.blob.sizeBytes > MAX_MANIFEST_SIZE_BYTES) return undefined;
      const bytes = await readWhole(opened.blob, { signal });
      if (bytes === undefined) await this.#content.reportCorrupt(digest, { host: OWN_FINDINGS });
      return bytes;
    } finally {
      await opened.blob.close();
    }
  }

  async #blob(
    digest: Digest,
    content: RepositoryContent,
    request: ContentRequest,
  ): Promise<BootstrapAnswer> {
    const missing = errorAnswer(
      404,
      { code: 'BLOB_UNKNOWN', message: `This node does not have ${digest}` },
      'missing',
    );
    // containerd would store a manifest that it gets here as a blob of no type.
    if (!content.blobs.has(digest) || content.manifests.has(digest)) return missing;
    const range = parseByteRange(request.range);
    if (request.isHead) {
      const held = await this.#content.stat(digest, { signal: request.signal });
      if (held === undefined) return missing;
      const headers = blobHeaders(digest, held.sizeBytes);
      return { status: 200, headers, result: 'blob' };
    }
    if (range.kind === 'unsatisfiable') return badRange();
    const opened = await this.#content.open(digest, { signal: request.signal });
    if (opened === undefined) return missing;
    const { blob, verified } = opened;
    const { sizeBytes } = blob;
    if (range.kind === 'none') {
      const body = { blob, verified, window: { start: 0, end: sizeBytes - 1 } };
      return { status: 200, headers: blobHeaders(digest, sizeBytes), body, result: 'blob' };
    }
    const window = resolveByteRange(range.spec, sizeBytes);
    if (window === undefined) {
      await blob.close();
      return badRange(sizeBytes);
    }
    const headers = {
      ...blobHeaders(digest, window.end - window.start + 1),
      'content-range': formatContentRange(window, sizeBytes),
    };
    return { status: 206, headers, body: { blob, verified, window }, result: 'blob' };
  }
}

/** An error as the distribution specification wants it. */
export function errorAnswer(
  status: number,
  error: OciError,
  result: BootstrapResult,
  headers: Readonly<Record<string, string>> = {},
): BootstrapAnswer {
  return { ...ociErrorAnswer(status, error, headers), result };
}

function headersOf(
  digest: Digest,
  mediaType: string,
  sizeBytes: number,
): Record<string, string | number> {
  return {
    'content-type': mediaType,
    'content-length': sizeBytes,
    'docker-content-digest': digest,
    etag: `"${digest}"`,
  };
}

function blobHeaders(digest: Digest, sizeBytes: number): Record<string, string | number> {
  return { ...headersOf(digest, MEDIA_TYPE.octetStream, sizeBytes), 'accept-ranges': 'bytes' };
}

function badRange(sizeBytes?: number): BootstrapAnswer {
  const headers =
    sizeBytes === undefined ? {} : { 'content-range': formatUnsatisfiedContentRange(sizeBytes) };
  const error = { code: 'SIZE_INVALID', message: 'The range lies outside of the blob' } as const;
  return errorAnswer(416, error, 'bad_range', headers);
}

function jsonAnswer(): BootstrapAnswer {
  const body = Buffer.from('{}');
  const headers = { 'content-type': MEDIA_TYPE.json, 'content-length': body.length };
  return { status: 200, headers, body, result: 'base' };
}
