import type { Digest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { usedPercent, type DiskUsage, type DiskWatch } from '../disk-usage.ts';
import type { StoreCallOptions } from '../store.ts';
import { byDispensability, chooseCopies, type ReleaseReason } from './copy-choice.ts';
import type { CopyCount } from './copy-count.ts';
import { CopyKnowledge } from './copy-knowledge.ts';
import { copyStates } from './copy-states.ts';
import { CopyPolicy, type CopyPolicyOptions } from './copy-policy.ts';
import { calmPercent, nextPressure, type PressureLevel } from './disk-pressure.ts';
import type { GuardSet } from './guard-set.ts';
import type { NodeImage, NodeImages } from './node-images.ts';
import type { LastCopiesMetrics } from './last-copies-metrics.ts';

/** What can be changed while it runs. */
export interface LastCopiesSettings extends CopyPolicyOptions {
  readonly budgetBytes: number;
  /** Of the file system; the smaller of the two budgets counts. */
  readonly budgetPercent: number;
  readonly releaseAtPercent: number;
  readonly dropAtPercent: number;
  /** Between two times that everybody is asked, milliseconds, give or take a fifth. */
  readonly pollIntervalMs: number;
}

export interface LastCopiesDependencies {
  readonly selfName: string;
  readonly images: NodeImages;
  readonly guards: GuardSet;
  readonly cluster: Pick<CopyCount, 'poll' | 'others'>;
  readonly disk: Pick<DiskWatch, 'subscribe' | 'latest'>;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'info' | 'warn' | 'debug'>;
  readonly metrics: LastCopiesMetrics;
  /** From 0 to 1. */
  readonly random: () => number;
}

/** So long after something has happened it is looked at, so that much at once is one look. */
const settleMs = 500;
/** A node on which something happens all the time is looked at no more often than this. */
const restMs = 10_000;
/** How often the runtime is asked what it has removed while the disk fills up. */
const heldLookMs = 2000;
/** With more members than this all are asked less often, as each is asked by all others. */
const fewMembers = 20;
/** Never more than so many times the interval. */
const maxStretch = 15;
const maxShown = 100;

/**
 * Keeps copies of images that would become too few in the cluster when the runtime of this node
 * removes them.
 *
 * Garbage collection runs a moment after a removal, too soon to step in, so the images are guarded
 * ahead: by leases, which cost no space as long as the image is there anyway. When it is removed
 * its blobs stay, within the budget, until others have enough copies, or the disk fills up.
 */
export class LastCopies {
  readonly #parts: LastCopiesDependencies;
  readonly #stopped = new AbortController();
  #settings: LastCopiesSettings;
  #policy: CopyPolicy;
  readonly #knowledge: CopyKnowledge;
  #pressure: PressureLevel = 'none';
  #nextPollAtMs = 0;
  #heldLookAtMs = 0;
  /** Blobs of the runtime's own images, as of the last look. */
  #kept: ReadonlyMap<Digest, NodeImage> = new Map();
  #held: ReadonlySet<Digest> = new Set();
  #hasSeenDisk = false;
  #isBroken = false;
  #isMarked = false;
  #wake = new AbortController();
  #running: Promise<void> | undefined;
  #unsubscribe: (() => void) | undefined;

  constructor(settings: LastCopiesSettings, dependencies: LastCopiesDependencies) {
    this.#parts = dependencies;
    this.#settings = settings;
    this.#policy = new CopyPolicy(settings);
    this.#knowledge = new CopyKnowledge({ selfName: dependencies.selfName });
  }

  start(): void {
    this.#unsubscribe ??= this.#parts.disk.subscribe((usage) => this.#onDisk(usage));
    this.#running ??= this.#run();
  }

  /** What is guarded stays guarded, for as long as its leases live. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#unsubscribe?.();
    await this.#running;
  }

  /** Something has changed in the runtime: look soon. */
  mark(): void {
    this.#isMarked = true;
    this.#heldLookAtMs = 0;
    this.#wake.abort();
  }

  /** Takes over changed settings. */
  apply(settings: LastCopiesSettings): void {
    this.#settings = settings;
    this.#policy = new CopyPolicy(settings);
    this.mark();
  }

  /** For people. */
  status(): object {
    const { guards, disk } = this.#parts;
    const held = [...this.#held].flatMap((target) => guards.guards.get(target) ?? []);
    const usage = disk.latest;
    return {
      pressure: this.#pressure,
      ...(usage && { diskUsedPercent: Math.round(usedPercent(usage) * 10) / 10 }),
      budgetBytes: this.#budgetBytes(),
      guardedImages: guards.guards.size,
      guardedBytes: guards.sizeBytes,
      heldImages: held.length,
      heldBytes: this.#heldBytes(),
      ...this.#knowledge.status(),
      held: held.slice(0, maxShown).map(({ target, names }) => ({
        target,
        names,
        otherCopies: this.#knowledge.others(target).length,
      })),
    };
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        this.#isMarked = false;
        await this.#look(signal);
        this.#noteBroken(undefined);
      } catch (error) {
        if (!this.#hasStopped()) this.#noteBroken(error);
      }
      await this.#rest(signal);
    }
  }

  #hasStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  /** One look at everything, and what follows from it. */
  async #look(signal: AbortSignal): Promise<void> {
    const { images, guards, cluster, clock } = this.#parts;
    await guards.refresh({ signal });
    if (this.#policy.wantsNothing && guards.guards.size === 0) {
      this.#planPoll();
      this.#measure();
      return;
    }
    const found = await images.list({ signal });
    this.#kept = new Map(found.map((image) => [image.target, image]));
    this.#noteHeld();
    if (clock.now() >= this.#nextPollAtMs) {
      this.#planPoll();
      const wanted = [...guards.guards.values(), ...found.filter(isWhole)]
        .filter(({ names }) => this.#policy.wantedOf(names) > 0)
        .map(({ target, blobs }) => [target, blobs] as const);
      this.#knowledge.add(await cluster.poll(new Map(wanted), { signal }));
    }
    const budgetBytes = this.#budgetBytes();
    const states = copyStates({
      images: this.#kept,
      guards: guards.guards,
      policy: this.#policy,
      knowledge: this.#knowledge,
    });
    const choice = chooseCopies(states, {
      budgetBytes: budgetBytes ?? Infinity,
      isBlind: this.#knowledge.isBlind,
    });
    await this.#release(choice.release, { signal, sync: false });
    for (const { target } of choice.guard) await this.#guard(target, signal);
    this.#measure();
  }

  async #guard(target: Digest, signal: AbortSignal): Promise<void> {
    const { guards, log } = this.#parts;
    if (guards.guards.has(target)) {
      if (await guards.renewIfDue(target, { signal })) return;
      log.warn({ target }, 'an image that was guarded has lost a part');
      return;
    }
    const image = this.#kept.get(target);
    if (image === undefined) return;
    const isGuarded = await guards.add(image, {
      signal,
      mayAdd: () => this.#pressure === 'none',
      budgetBytes: () => this.#budgetBytes(),
    });
    if (isGuarded) log.debug({ target, names: image.names }, 'guards an image');
  }

  async #onDisk(usage: DiskUsage): Promise<void> {
    const { log, guards } = this.#parts;
    // Without it there was no budget.
    if (!this.#hasSeenDisk) this.mark();
    this.#hasSeenDisk = true;
    const percent = usedPercent(usage);
    const level = nextPressure(this.#pressure, percent, this.#settings);
    if (level !== this.#pressure) {
      log.info({ level, usedPercent: Math.round(percent * 10) / 10 }, 'pressure on the disk');
      // After the pressure there may be room again for what was not guarded in it.
      if (level === 'none') this.mark();
      this.#heldLookAtMs = 0;
      this.#pressure = level;
    }
    const { signal } = this.#stopped;
    // Its bytes count before a guard is there, so that one in the making goes, too.
    if (guards.sizeBytes > 0 && level === 'drop') {
      await this.#noteRemoved(signal).catch(() => undefined);
      await this.#release('all', { signal, sync: true });
    } else if (guards.guards.size > 0 && percent >= this.#settings.releaseAtPercent) {
      await this.#makeSpace(usage, signal);
    }
    this.#measure();
  }

  /** Lets as many copies go as takes the disk out of pressure. */
  async #makeSpace(usage: DiskUsage, signal: AbortSignal): Promise<void> {
    const { guards, clock } = this.#parts;
    if (clock.now() < this.#heldLookAtMs) return;
    this.#heldLookAtMs = clock.now() + heldLookMs;
    await this.#noteRemoved(signal);
    const order = [...this.#held]
      .flatMap((target) => guards.guards.get(target) ?? [])
      .map((guard) => ({ ...guard, others: this.#knowledge.others(guard.target).length }))
      .sort(byDispensability)
      .map(({ target }) => target);
    const excess = (usedPercent(usage) - calmPercent(this.#settings)) / 100;
    const leaving = guards.enoughOf(order, this.#keptBlobs(), excess * usage.sizeBytes);
    const reasons = leaving.map((target) => [target, 'disk_release'] as const);
    await this.#release(new Map(reasons), { signal, sync: true });
    // More may have to go at once.
    if (leaving.length > 0) this.#heldLookAtMs = 0;
  }

  async #release(
    leaving: ReadonlyMap<Digest, ReleaseReason> | 'all',
    options: StoreCallOptions & { readonly sync: boolean },
  ): Promise<void> {
    const { guards, log, metrics } = this.#parts;
    const before = new Map(guards.guards);
    try {
      await guards.release(leaving === 'all' ? leaving : [...leaving.keys()], options);
    } finally {
      for (const [target, guard] of before) {
        const reason = leaving === 'all' ? 'disk_drop' : leaving.get(target);
        if (reason === undefined || guards.guards.has(target) || !this.#held.has(target)) continue;
        metrics.released.inc({ reason });
        log.info({ target, names: guard.names, reason }, 'lets go of a removed image');
      }
      this.#noteHeld();
    }
  }

  /** Asks the runtime what it still has, without looking at each image. */
  async #noteRemoved(signal: AbortSignal): Promise<void> {
    const targets = await this.#parts.images.targets({ signal });
    this.#kept = new Map([...this.#kept].filter(([target]) => targets.has(target)));
    // An image that came since the last look is not held, whatever is known of it.
    this.#noteHeld(targets);
  }

  #noteHeld(alsoKept: ReadonlySet<Digest> = new Set()): void {
    const { guards, log } = this.#parts;
    const held = new Set<Digest>();
    for (const [target, { names }] of guards.guards) {
      if (this.#kept.has(target) || alsoKept.has(target)) continue;
      held.add(target);
      if (!this.#held.has(target)) log.info({ target, names }, 'keeps an image that was removed');
    }
    this.#held = held;
  }

  #keptBlobs(): ReadonlySet<Digest> {
    return new Set([...this.#kept.values()].flatMap(({ blobs }) => [...blobs.keys()]));
  }

  #heldBytes(): number {
    return this.#parts.guards.bytesOnlyHeld(this.#held, this.#keptBlobs());
  }

  #budgetBytes(): number | undefined {
    const usage = this.#parts.disk.latest;
    if (usage === undefined) return undefined;
    const { budgetBytes, budgetPercent } = this.#settings;
    return Math.min(budgetBytes, Math.floor((usage.sizeBytes * budgetPercent) / 100));
  }

  #measure(): void {
    const { guards, metrics } = this.#parts;
    metrics.guardedBytes.set(guards.sizeBytes);
    metrics.guardedImages.set(guards.guards.size);
    metrics.heldBytes.set(this.#heldBytes());
    metrics.heldImages.set(this.#held.size);
    metrics.budgetBytes.set(this.#budgetBytes() ?? 0);
  }

  get #intervalMs(): number {
    const stretch = Math.min(Math.max(this.#parts.cluster.others / fewMembers, 1), maxStretch);
    return this.#settings.pollIntervalMs * stretch;
  }

  #planPoll(): void {
    const { clock, random } = this.#parts;
    this.#nextPollAtMs = clock.now() + this.#intervalMs * (0.8 + 0.4 * random());
  }

  /** Waits for the next poll, or for something to happen. */
  async #rest(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    try {
      await clock.sleep(Math.min(restMs, this.#settings.pollIntervalMs), { signal });
      if (!this.#isMarked) {
        this.#wake = new AbortController();
        // Bounded on both sides, in case the machine's time is set meanwhile.
        const untilPollMs = Math.max(this.#nextPollAtMs - clock.now(), 0);
        await clock.sleep(Math.min(untilPollMs, this.#intervalMs * 2), {
          signal: AbortSignal.any([signal, this.#wake.signal]),
        });
      }
    } catch {
      // Woken by a mark, or by the stop.
    }
    if (this.#isMarked) await clock.sleep(settleMs, { signal }).catch(() => undefined);
  }

  #noteBroken(error: unknown): void {
    const { log } = this.#parts;
    const isBroken = error !== undefined;
    if (isBroken === this.#isBroken) return;
    this.#isBroken = isBroken;
    if (isBroken) log.warn({ err: error }, 'cannot see to last copies; what is kept stays');
    else log.info({}, 'sees to last copies again');
  }
}

function isWhole({ isComplete }: NodeImage): boolean {
  return isComplete;
}
