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

/** What a tag was said to name when the agent was told last. */
interface Known {
  readonly digest: string;
  readonly toldAtMs: number;
  readonly told: Promise<void>;
  /** The agent has it: only the time of its confirmation can be lost. */
  isRecorded: boolean;
}

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
  readonly #known = new LRUCache<string, Known>({
    maxSize: MAX_REMEMBERED,
    sizeCalculation: () => 1,
  });
  /** What the agent has yet to be told. */
  readonly #late = new LRUCache<string, Statement>({
    maxSize: MAX_REMEMBERED,
    sizeCalculation: () => 1,
  });
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
  }

  /**
   * The upstream has confirmed what a tag names. Returns when that is remembered, or cannot be
   * soon. Never throws. That it names the same as before is no news worth waiting for.
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
    const before = this.#known.get(name);
    const isSame = before?.digest === digest;
    const isQuiet = isSame && this.#clock.now() - before.toldAtMs < QUIET_MS;
    const known = isQuiet ? before : this.#note(name, tag, isSame && before.isRecorded);
    if (kept === undefined && known.isRecorded) return;
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

  /** @param isRecorded whether the agent has the same from before */
  #note(name: string, tag: Statement, isRecorded: boolean): Known {
    const telling = this.#tell(name, tag);
    const known: Known = {
      digest: tag.digest,
      toldAtMs: this.#clock.now(),
      told: telling.then((isTold) => {
        known.isRecorded ||= isTold;
      }),
      isRecorded,
    };
    this.#known.set(name, known);
    return known;
  }

  /** @returns whether the agent has taken it */
  async #tell(name: string, tag: Statement): Promise<boolean> {
    try {
      await this.#agent?.observe(name, tag, { timeoutMs: RECORD_TIMEOUT_MS });
      return true;
    } catch (error) {
      if (!this.#canRetry(name, error)) return false;
      if (this.#late.size === 0) {
        this.#log.warn({ name, err: error }, 'the agent will be told later what tags name');
      }
      const known = this.#late.get(name)?.observedAtMs ?? 0;
      if (tag.observedAtMs >= known) this.#late.set(name, tag);
      void this.#retry();
      return false;
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
