import { timestampMs } from '@bufbuild/protobuf/wkt';
import { LRUCache } from 'lru-cache';

import { parseDigest } from '../../oci/digest.ts';
import { parseReference } from '../../oci/reference.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { Seldom } from '../../telemetry/seldom.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { PullMetrics } from './pull-metrics.ts';
import type { RegistryMemory } from './registry-log.ts';

/** What CRI writes on every image that it has pulled itself. */
const MANAGED_LABEL = 'io.cri-containerd.image';
/** What a pull, and nothing else, writes on the manifest: the repository it came from. */
const SOURCE_LABEL = 'containerd.io/distribution.source.';

/** Between the event and the look: the registry notes a request at its end, milliseconds. */
const SETTLE_MS = 2000;
/** A manifest that is older than this when its image is named was not fetched for it. */
const NEW_MS = 3_600_000;
const RETRY_MS = 5000;
const TRIES = 4;
const MAX_PENDING = 256;
const MAX_REMEMBERED = 10_000;
const RECENT_MS = 3_600_000;
const MAX_RECENT = 10_000;
const MAX_EXAMPLES = 5;
const UNKNOWN =
  'cannot tell how images are pulled: the registry answers, but not on its admin port; ' +
  'is registry.admin the same for registry and agent?';

/** How a pull went, as far as the registry of this node is concerned. */
type PullWay = 'seen' | 'bypassed' | 'unknown';

/** A pull that the registry of this node knows nothing of. */
export interface BypassedPull {
  readonly image: string;
  /** ISO 8601. */
  readonly at: string;
  readonly reason: string;
}

/** The pulls of the last hour. */
export interface PullSummary {
  readonly seen: number;
  readonly bypassed: number;
  /** Nobody can say: the registry answers, but what it was asked cannot be learnt. */
  readonly unknown: number;
  /** The last few that bypassed the registry, the newest first. */
  readonly examples: readonly BypassedPull[];
}

interface Dependencies {
  readonly client: Pick<ContainerdClient, 'image' | 'info'>;
  readonly askRegistry: (
    digest: string,
    options: { readonly signal: AbortSignal },
  ) => Promise<RegistryMemory>;
  /** Whether the registry of this node answers where containerd asks it. */
  readonly isRegistryThere: (options: { readonly signal: AbortSignal }) => Promise<boolean>;
  readonly metrics: Pick<PullMetrics, PullWay>;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'warn' | 'debug'>;
}

/**
 * Counts the pulls of a node that its registry saw, and those that it did not.
 *
 * A pull is an image that CRI has named and whose manifest a pull has just put into the store, by
 * their labels. Imports and clients such as ctr lack the one or the other; a new name for what was
 * there already, and the pull of an image that was, are left out, since they look alike. What the
 * registry cannot know any more is not counted at all.
 *
 * A registry that does not answer where containerd asks it was bypassed: nothing went through it. One
 * that answers there and not on its admin port may have been asked, and nobody can tell.
 */
export class PullCount {
  readonly #dependencies: Dependencies;
  readonly #counted = new LRUCache<string, true>({
    maxSize: MAX_REMEMBERED,
    sizeCalculation: () => 1,
  });
  readonly #stopped = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  readonly #saysUnknown: Seldom;
  #recent: { readonly atMs: number; readonly way: PullWay }[] = [];
  #examples: BypassedPull[] = [];

  constructor(dependencies: Dependencies) {
    this.#dependencies = dependencies;
    const now = (): number => dependencies.clock.now();
    this.#saysUnknown = new Seldom({ intervalMs: RECENT_MS, maxKeys: 1 }, { now });
  }

  /** containerd has given an image a name, or another target to a name. */
  noteImage({
    name,
    labels,
  }: {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
  }): void {
    if (labels[MANAGED_LABEL] !== 'managed' || name.startsWith('sha256:')) return;
    if (this.#pending.size >= MAX_PENDING || this.#stopped.signal.aborted) return;
    const work = this.#look(name)
      .catch((error: unknown) => {
        this.#dependencies.log.debug({ name, err: error }, 'cannot tell how an image was pulled');
      })
      .finally(() => this.#pending.delete(work));
    this.#pending.add(work);
  }

  summary(): PullSummary {
    this.#forget();
    const count = (of: PullWay): number => this.#recent.filter(({ way }) => way === of).length;
    return {
      ...{ seen: count('seen'), bypassed: count('bypassed'), unknown: count('unknown') },
      examples: this.#examples,
    };
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#pending);
  }

  async #look(name: string): Promise<void> {
    const { clock, client, isRegistryThere, log } = this.#dependencies;
    const { signal } = this.#stopped;
    const namedAtMs = clock.now();
    const reference = parseReference(name);
    if (!reference.ok) return;
    await clock.sleep(SETTLE_MS, { signal });
    const target = (await client.image(name, { signal }))?.target?.digest ?? '';
    const digest = parseDigest(target);
    if (!digest.ok) return;
    const info = await client.info(digest.value, { signal });
    if (info?.createdAt === undefined || !isFrom(info.labels, reference.value)) return;
    const storedAtMs = timestampMs(info.createdAt);
    if (namedAtMs - storedAtMs > NEW_MS) return;
    // One pull names its image several times.
    const key = `${digest.value} ${storedAtMs}`;
    if (this.#counted.has(key)) return;
    this.#counted.set(key, true);
    const memory = await this.#ask(digest.value);
    if (memory?.isKnown === true) {
      this.#add('seen');
      return;
    }
    if (memory !== undefined && memory.sinceMs > storedAtMs) {
      log.debug({ image: name }, 'the registry began after this pull');
      return;
    }
    if (memory === undefined && (await isRegistryThere({ signal }))) {
      this.#add('unknown');
      if (this.#saysUnknown.isDue('')) log.warn({ image: name }, UNKNOWN);
      return;
    }
    const reason =
      memory === undefined
        ? 'the registry of this node does not run, or does not answer'
        : `containerd has not asked the registry of this node for images of ${reference.value.registry}: ` +
          'salvor doctor on this node tells why';
    this.#add('bypassed');
    const example = { image: name, at: new Date(namedAtMs).toISOString(), reason };
    this.#examples = [example, ...this.#examples].slice(0, MAX_EXAMPLES);
    log.warn({ image: name, reason }, 'a pull has bypassed Salvor');
  }

  /** @returns undefined when the registry is away for longer than a restart */
  async #ask(digest: string): Promise<RegistryMemory | undefined> {
    const { askRegistry, clock } = this.#dependencies;
    const { signal } = this.#stopped;
    for (let tries = 1; ; tries += 1) {
      try {
        return await askRegistry(digest, { signal });
      } catch {
        signal.throwIfAborted();
        if (tries === TRIES) return undefined;
        await clock.sleep(RETRY_MS, { signal });
      }
    }
  }

  #add(way: PullWay): void {
    const { clock, metrics } = this.#dependencies;
    metrics[way].inc();
    this.#forget();
    this.#recent.push({ atMs: clock.now(), way });
    if (this.#recent.length > MAX_RECENT) this.#recent.shift();
  }

  #forget(): void {
    const fromMs = this.#dependencies.clock.now() - RECENT_MS;
    this.#recent = this.#recent.filter(({ atMs }) => atMs >= fromMs);
    this.#examples = this.#examples.filter(({ at }) => Date.parse(at) >= fromMs);
  }
}

/** Whether a manifest was pulled from the repository of a name. containerd leaves out the port. */
function isFrom(
  labels: Readonly<Record<string, string>>,
  { registry, repository }: { readonly registry: string; readonly repository: string },
): boolean {
  const host = registry.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const sources = [registry, host].map((name) => labels[`${SOURCE_LABEL}${name}`] ?? '');
  return sources.some((source) => source.split(',').includes(repository));
}
