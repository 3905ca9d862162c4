import { LRUCache } from 'lru-cache';
import type { AgentClient } from '../rpc/agent-client.ts';
import { AgentError } from '../rpc/agent-error.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import { systemClock, type Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { CachedManifest } from './manifest-cache.ts';

/** An agent is not told the same again for this long, milliseconds. */
const QUIET_MS = 5000;
const MAX_REMEMBERED = 10_000;
const RECORD_TIMEOUT_MS = 2000;
/** The longest that an answer waits until it is recorded, milliseconds. */
const ANSWER_WAIT_MS = 250;
/** Until an agent that could not be told is tried again, milliseconds. */
const RETRY_MS = 1000;

type Statement = TagStatement & { readonly observedAtMs: number };

/** Keeps manifests and names that pass, where somebody wants that. */
export interface ManifestKeeper {
  manifest(manifest: CachedManifest): Promise<void>;
  tag(name: string, tag: Statement): Promise<void>;
}

/**
 * Hands what the upstream confirms on to those who remember it. What a client has been answered
 * is remembered by then, so that nothing is lost with this process; a memory that is slow or away
 * holds up one answer for a moment at most, and is told later.
 */
export class TagRecorder {
  readonly #agent: Pick<AgentClient, 'observe'> | undefined;
  readonly #keeper: ManifestKeeper | undefined;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #recent: LRUCache<string, { readonly digest: string; readonly told: Promise<void> }>;
  /** What the agent has yet to be told. */
  readonly #late = new LRUCache<string, Statement>({ max: MAX_REMEMBERED });
  #isRetrying = false;
  /** The last answer that waited has waited in vain. */
  #isSlow = false;

  constructor(dependencies: {
    agent: Pick<AgentClient, 'observe'> | undefined;
    keeper?: ManifestKeeper | undefined;
    log: Logger;
    clock?: Clock;
  }) {
    this.#agent = dependencies.agent;
    this.#keeper = dependencies.keeper;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock ?? systemClock;
    const perf = { now: () => this.#clock.now() };
    this.#recent = new LRUCache({ max: MAX_REMEMBERED, ttl: QUIET_MS, ttlResolution: 0, perf });
  }

  /**
   * The upstream has confirmed what a tag names. Returns when that is remembered, or cannot be
   * soon. Never throws.
   *
   * @param name "registry/repository:tag"
   */
  async observe(
    name: string,
    answer: Pick<TagStatement, 'digest' | 'mediaType' | 'sizeBytes'> & {
      readonly confirmedAtMs: number;
    },
  ): Promise<void> {
    const { digest, mediaType, sizeBytes, confirmedAtMs: observedAtMs } = answer;
    const tag = { digest, mediaType, sizeBytes, observedAtMs };
    // A keeper forgets names along with manifests that it has no room for, so it decides itself.
    const kept = this.#keeper?.tag(name, tag).catch((error: unknown) => {
      this.#log.warn({ name, digest, err: error }, 'cannot keep what a tag names');
    });
    let known = this.#recent.get(name);
    if (known?.digest !== digest) {
      known = { digest, told: this.#tell(name, tag) };
      this.#recent.set(name, known);
    }
    const recorded = Promise.all([kept, known.told]).then(() => {
      this.#isSlow = false;
    });
    if (!this.#isSlow) await this.#waitFor(recorded);
  }

  /** Gives up what the agent has yet to be told. */
  close(): void {
    this.#stop.abort();
  }

  /** A manifest has passed; where one keeps what passes, it is on disk when this returns. */
  async keepManifest(manifest: CachedManifest): Promise<void> {
    try {
      await this.#keeper?.manifest(manifest);
    } catch (error) {
      this.#log.warn({ digest: manifest.digest, err: error }, 'cannot keep a manifest');
    }
  }

  async #waitFor(recorded: Promise<void>): Promise<void> {
    const done = new AbortController();
    const late = this.#clock
      .sleep(ANSWER_WAIT_MS, { signal: done.signal })
      .then(() => (this.#isSlow = true))
      .catch(() => undefined);
    await Promise.race([recorded, late]);
    done.abort();
  }

  async #tell(name: string, tag: Statement): Promise<void> {
    try {
      await this.#agent?.observe(name, tag, { timeoutMs: RECORD_TIMEOUT_MS });
    } catch (error) {
      if (!this.#canRetry(name, error)) return;
      if (this.#late.size === 0) {
        this.#log.warn({ name, err: error }, 'the agent will be told later what tags name');
      }
      const known = this.#late.get(name)?.observedAtMs ?? 0;
      if (tag.observedAtMs >= known) this.#late.set(name, tag);
      void this.#retry();
    }
  }

  #canRetry(name: string, error: unknown): boolean {
    if (!(error instanceof AgentError) || error.kind !== 'invalid') return true;
    this.#log.warn({ name, err: error }, 'cannot record what a tag names');
    return false;
  }

  async #retry(): Promise<void> {
    if (this.#isRetrying) return;
    this.#isRetrying = true;
    try {
      let count = 0;
      while (this.#late.size > 0) {
        await this.#clock.sleep(RETRY_MS, this.#stop);
        count += await this.#tellLate();
      }
      this.#log.info({ names: count }, 'the agent was told what it had missed');
    } catch {
      // The process ends.
    } finally {
      this.#isRetrying = false;
    }
  }

  /** @returns how many statements the agent took before it failed, or all */
  async #tellLate(): Promise<number> {
    let count = 0;
    for (const [name, tag] of [...this.#late.entries()].reverse()) {
      try {
        await this.#agent?.observe(name, tag, { timeoutMs: RECORD_TIMEOUT_MS });
        count += 1;
      } catch (error) {
        if (this.#canRetry(name, error)) return count;
      }
      // A later statement may have come meanwhile.
      if (this.#late.get(name) === tag) this.#late.delete(name);
    }
    return count;
  }
}
