import { LRUCache } from 'lru-cache';
import type { AgentClient } from '../rpc/agent-client.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { CachedManifest } from './manifest-cache.ts';

/** An agent is not told the same again for this long, milliseconds. */
const QUIET_MS = 5000;
const MAX_REMEMBERED = 10_000;
const RECORD_TIMEOUT_MS = 2000;

/** Keeps manifests and names that pass, where somebody wants that. */
export interface ManifestKeeper {
  manifest(manifest: CachedManifest): Promise<void>;
  tag(name: string, tag: TagStatement & { readonly observedAtMs: number }): Promise<void>;
}

/** Hands what the upstream confirms on to those who remember it. Never holds up a pull. */
export class TagRecorder {
  readonly #agent: Pick<AgentClient, 'observe'> | undefined;
  readonly #keeper: ManifestKeeper | undefined;
  readonly #log: Logger;
  readonly #recent = new LRUCache<string, string>({ max: MAX_REMEMBERED, ttl: QUIET_MS });

  constructor(dependencies: {
    agent: Pick<AgentClient, 'observe'> | undefined;
    keeper?: ManifestKeeper | undefined;
    log: Logger;
  }) {
    this.#agent = dependencies.agent;
    this.#keeper = dependencies.keeper;
    this.#log = dependencies.log;
  }

  /**
   * The upstream has confirmed what a tag names.
   *
   * @param name "registry/repository:tag"
   */
  observe(
    name: string,
    answer: Pick<TagStatement, 'digest' | 'mediaType' | 'sizeBytes'> & {
      readonly confirmedAtMs: number;
    },
  ): void {
    const { digest, mediaType, sizeBytes, confirmedAtMs: observedAtMs } = answer;
    const tag = { digest, mediaType, sizeBytes, observedAtMs };
    const failed = (error: unknown): void => {
      this.#recent.delete(name);
      this.#log.warn({ name, digest, err: error }, 'cannot record what a tag names');
    };
    // A keeper forgets names along with manifests that it has no room for, so it decides itself.
    this.#keeper?.tag(name, tag).catch(failed);
    if (this.#recent.get(name) === digest) return;
    this.#recent.set(name, digest);
    this.#agent?.observe(name, tag, { timeoutMs: RECORD_TIMEOUT_MS }).catch(failed);
  }

  /** A manifest has passed; where one keeps what passes, it is on disk when this returns. */
  async keepManifest(manifest: CachedManifest): Promise<void> {
    try {
      await this.#keeper?.manifest(manifest);
    } catch (error) {
      this.#log.warn({ digest: manifest.digest, err: error }, 'cannot keep a manifest');
    }
  }
}
