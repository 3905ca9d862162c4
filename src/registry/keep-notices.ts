import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { AgentClient } from '../rpc/agent-client.ts';
import { AgentError } from '../rpc/agent-error.ts';
import { systemClock, type Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { ImageParts } from './image-parts.ts';
import type { CachedManifest } from './manifest-cache.ts';

/** The longest that a pull waits until its image is kept, milliseconds. */
const WAIT_MS = 50;
/** The agent is not told of the same image again for this long, milliseconds. */
const QUIET_MS = 60_000;
const MAX_REMEMBERED = 10_000;
/** How long the agent may take, milliseconds. It goes on when the answer is not waited for. */
const CALL_TIMEOUT_MS = 10_000;
/** Notices under way at a time; what comes on top is told with the next blob. */
const MAX_PENDING = 32;

/**
 * Tells the agent which images this node pulls, so that it keeps their layers. It is told when the
 * first blob of an image is asked for: containerd has its manifest by then, and not yet all of its
 * layers. Nothing that goes wrong here changes anything for a pull.
 */
export class KeepNotices {
  readonly #agent: Pick<AgentClient, 'keep'>;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #clock: Clock;
  readonly #parts: ImageParts;
  /** When the agent was told of an image, or of a blob of unknown images. */
  readonly #toldAtMs = new LRUCache<Digest, number>({
    maxSize: MAX_REMEMBERED,
    sizeCalculation: () => 1,
  });
  #pending = 0;
  /** The last notice has failed, or was not done in time: nobody waits for the next one. */
  #isSlow = false;

  constructor(dependencies: {
    agent: Pick<AgentClient, 'keep'>;
    parts: ImageParts;
    log: Pick<Logger, 'warn'>;
    clock?: Clock;
  }) {
    this.#agent = dependencies.agent;
    this.#parts = dependencies.parts;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock ?? systemClock;
  }

  /** containerd fetches a manifest: a pull of its image begins. */
  manifestPassed(manifest: CachedManifest): void {
    this.#parts.add(manifest);
    // It may have been removed since the agent was told.
    this.#toldAtMs.delete(manifest.digest);
  }

  /**
   * containerd fetches a blob. Resolves when its image is kept, or cannot be soon. Never rejects.
   */
  async blobAsked(digest: Digest): Promise<void> {
    const all = this.#parts.imagesOf(digest);
    const images = all.filter(({ manifest }) => this.#isNews(manifest));
    if (all.length === 0 ? !this.#isNews(digest) : images.length === 0) return;
    if (this.#pending >= MAX_PENDING) return;
    const subjects = all.length === 0 ? [digest] : images.map(({ manifest }) => manifest);
    const now = this.#clock.now();
    for (const subject of subjects) this.#toldAtMs.set(subject, now);
    const told = this.#tell(digest, images, subjects);
    if (!this.#isSlow) await this.#waitFor(told);
  }

  #isNews(subject: Digest): boolean {
    const toldAtMs = this.#toldAtMs.get(subject);
    return toldAtMs === undefined || Math.abs(this.#clock.now() - toldAtMs) >= QUIET_MS;
  }

  async #tell(
    digest: Digest,
    images: ReturnType<ImageParts['imagesOf']>,
    subjects: readonly Digest[],
  ): Promise<void> {
    this.#pending += 1;
    try {
      await this.#agent.keep({ digest, images }, { timeoutMs: CALL_TIMEOUT_MS });
      this.#isSlow = false;
    } catch (error) {
      // The next blob of the image is another chance, unless the agent is too old for any.
      const isTooOld = error instanceof AgentError && error.kind === 'unimplemented';
      if (!isTooOld) for (const subject of subjects) this.#toldAtMs.delete(subject);
      if (!this.#isSlow) this.#log.warn({ digest, err: error }, 'cannot have an image kept');
      this.#isSlow = true;
    } finally {
      this.#pending -= 1;
    }
  }

  async #waitFor(told: Promise<void>): Promise<void> {
    const done = new AbortController();
    const late = this.#clock
      .sleep(WAIT_MS, { signal: done.signal })
      .then(() => {
        this.#isSlow = true;
      })
      .catch(() => undefined);
    await Promise.race([told, late]);
    done.abort();
  }
}
