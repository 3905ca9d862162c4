import type { Descriptor } from '../../oci/descriptor.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Manifest } from '../../oci/manifest.ts';
import { isImageManifestMediaType, isIndexMediaType } from '../../oci/media-type.ts';
import { parseReference } from '../../oci/reference.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { Seldom } from '../../telemetry/seldom.ts';
import type { HeldContent } from '../held-content.ts';
import type { ManifestReader } from '../inventory/manifest-reader.ts';
import type { BootstrapRules } from './bootstrap-rules.ts';

/** Looked at again when a request comes after this long, milliseconds. */
const FRESH_MS = 5000;
/** The same for what was not found. */
const MISSING_FRESH_MS = 1000;
const LOOK_TIMEOUT_MS = 10_000;
/** Image records that are followed, and digests that they may come to. */
const MAX_ROOTS = 1000;
const MAX_DIGESTS = 100_000;
const WARN_INTERVAL_MS = 3_600_000;
/** An index may list indexes; nobody nests them deeper. */
const MAX_DEPTH = 3;

/** What a repository's images consist of, as far as this node has their manifests. */
export interface RepositoryContent {
  readonly manifests: ReadonlyMap<Digest, Manifest>;
  /** Configs and layers, held or not. */
  readonly blobs: ReadonlySet<Digest>;
}

interface GrowingContent extends RepositoryContent {
  readonly manifests: Map<Digest, Manifest>;
  readonly blobs: Set<Digest>;
}

interface Look {
  readonly atMs: number;
  readonly repositories: ReadonlyMap<string, RepositoryContent>;
}

/**
 * Knows which digests belong to which of the repositories that may be read: those that an image
 * record of the repository leads to. A digest alone says nothing about who may have it.
 */
export class RepositoryContents {
  readonly #content: Pick<HeldContent, 'names'>;
  readonly #reader: Pick<ManifestReader, 'manifest'>;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #warnings: Seldom;
  #rules: BootstrapRules;
  #latest: Look | undefined;
  #looking: Promise<Look> | undefined;

  constructor(
    options: { readonly rules: BootstrapRules },
    dependencies: {
      content: Pick<HeldContent, 'names'>;
      reader: Pick<ManifestReader, 'manifest'>;
      clock: Clock;
      log: Pick<Logger, 'warn'>;
    },
  ) {
    this.#rules = options.rules;
    this.#content = dependencies.content;
    this.#reader = dependencies.reader;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
    this.#warnings = new Seldom(
      { intervalMs: WARN_INTERVAL_MS, maxKeys: 1 },
      { now: () => this.#clock.now() },
    );
  }

  /** Counts for looks that begin from now on. */
  take(rules: BootstrapRules): void {
    this.#rules = rules;
    this.#latest = undefined;
    this.#looking = undefined;
  }

  /**
   * What a repository has, looked at anew where `suffices` is not met by what was seen a moment
   * ago.
   *
   * @param name "registry/repository", normalised
   * @returns undefined when this node has no image of it
   * @throws StoreUnavailableError, or when looking takes too long
   */
  async of(
    name: string,
    suffices: (content: RepositoryContent) => boolean,
  ): Promise<RepositoryContent | undefined> {
    const first = await this.#look(FRESH_MS);
    const content = first.repositories.get(name);
    if (content !== undefined && suffices(content)) return content;
    return (await this.#look(MISSING_FRESH_MS)).repositories.get(name);
  }

  async #look(freshMs: number): Promise<Look> {
    const latest = this.#latest;
    const ageMs = latest === undefined ? undefined : this.#clock.now() - latest.atMs;
    // A clock may be put back, by hours where a node has just started.
    if (latest !== undefined && ageMs !== undefined && ageMs >= 0 && ageMs < freshMs) return latest;
    if (this.#looking !== undefined) return this.#looking;
    const looking = this.#lookNow(this.#rules).then((look) => {
      if (this.#looking === looking) this.#latest = look;
      return look;
    });
    this.#looking = looking;
    try {
      return await looking;
    } finally {
      if (this.#looking === looking) this.#looking = undefined;
    }
  }

  async #lookNow(rules: BootstrapRules): Promise<Look> {
    const atMs = this.#clock.now();
    const signal = AbortSignal.timeout(LOOK_TIMEOUT_MS);
    const repositories = new Map<string, GrowingContent>();
    const left = { roots: MAX_ROOTS, digests: MAX_DIGESTS };
    for await (const record of this.#content.names({ signal })) {
      const reference = parseReference(record.name);
      if (!reference.ok) continue;
      const { registry, repository } = reference.value;
      if (!rules.mayRead(registry, repository)) continue;
      if (left.roots === 0 || left.digests <= 0) {
        this.#warnOfTooMany();
        break;
      }
      left.roots -= 1;
      const name = `${registry}/${repository}`;
      const content = repositories.get(name) ?? { manifests: new Map(), blobs: new Set() };
      repositories.set(name, content);
      await this.#follow(record, content, { depth: 0, left, signal });
    }
    return { atMs, repositories };
  }

  #warnOfTooMany(): void {
    if (!this.#warnings.isDue('too many')) return;
    this.#log.warn(
      { images: MAX_ROOTS, digests: MAX_DIGESTS },
      'agent.bootstrap.repositories match more than can be given out; the rest is left out',
    );
  }

  async #follow(
    descriptor: Pick<Descriptor, 'digest' | 'mediaType'>,
    content: GrowingContent,
    walk: {
      readonly depth: number;
      readonly left: { digests: number };
      readonly signal: AbortSignal;
    },
  ): Promise<void> {
    const { depth, left, signal } = walk;
    if (content.manifests.has(descriptor.digest) || depth > MAX_DEPTH || left.digests <= 0) return;
    const read = await this.#reader.manifest(descriptor, { signal });
    // Images of other platforms mostly are not there.
    if ('problem' in read) return;
    const manifest = read.value;
    content.manifests.set(descriptor.digest, manifest);
    left.digests -= 1;
    if (manifest.kind === 'image') {
      const { config, layers } = manifest;
      for (const { digest } of config === undefined ? layers : [config, ...layers]) {
        content.blobs.add(digest);
      }
      left.digests -= layers.length + 1;
      return;
    }
    for (const child of manifest.manifests) {
      if (isImageManifestMediaType(child.mediaType) || isIndexMediaType(child.mediaType)) {
        await this.#follow(child, content, { ...walk, depth: depth + 1 });
      }
    }
  }
}
