import type { KubeApi } from '../kubernetes/kube-api.ts';
import { KubeError } from '../kubernetes/kube-error.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Backoff } from './backoff.ts';
import { membersOf, type EndpointSlice, type MergeOptions } from './endpoint-slices.ts';
import type { MemberList } from './member-list.ts';

export interface EndpointSliceMembershipOptions extends MergeOptions {
  readonly namespace: string;
  /** Name of the headless Service that selects the agents. */
  readonly service: string;
}

export interface EndpointSliceMembershipDependencies {
  readonly api: Pick<KubeApi, 'list' | 'watch'>;
  readonly list: Pick<MemberList, 'replace' | 'confirm' | 'reportTrouble'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly onTrouble?: (kind: TroubleKind) => void;
}

/** What went wrong: a list or watch that failed, or one that began from too old a version. */
export type TroubleKind = 'list' | 'watch' | 'expired';

/** A watch is asked to end after five to ten minutes, as the API server's own clients do. */
const WATCH_MS = 300_000;
/** A server that does not end it is no longer there, milliseconds. */
const OVERDUE_MS = 30_000;
/** After a watch that ended sooner there is a pause; if it said nothing either, it has failed. */
const SHORT_WATCH_MS = 5000;
const BACKOFF = { firstMs: 1000, maxMs: 60_000 };
const MAX_SLICES = 4096;

/**
 * Keeps a list of members by the EndpointSlices of a headless Service: lists them, follows their
 * changes, and begins anew where the API server has forgotten the version. Whatever fails, the
 * members stay, and it tries again, slower and slower up to a minute.
 */
export class EndpointSliceMembership {
  readonly #options: EndpointSliceMembershipOptions;
  readonly #dependencies: EndpointSliceMembershipDependencies;
  readonly #backoff: Backoff;
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #stop = new AbortController();
  #version = '';
  /** After a version was forgotten, what the API server has at hand may be older still. */
  #mustBeNewest = false;
  #loop: Promise<void> = Promise.resolve();

  constructor(
    options: EndpointSliceMembershipOptions,
    dependencies: EndpointSliceMembershipDependencies,
  ) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#backoff = new Backoff(BACKOFF, dependencies);
  }

  start(): void {
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      let kind: TroubleKind = 'list';
      try {
        if (this.#version === '') await this.#list();
        kind = 'watch';
        await this.#watch();
      } catch (error) {
        await this.#recover(kind, error);
      }
    }
  }

  async #list(): Promise<void> {
    const { api } = this.#dependencies;
    const { items, resourceVersion } = await api.list<EndpointSlice>('endpointslices', {
      ...this.#selection(),
      ...(this.#mustBeNewest ? {} : { resourceVersion: '0' }),
      signal: this.#stop.signal,
    });
    this.#slices.clear();
    for (const slice of items) this.#put(slice);
    this.#version = resourceVersion;
    this.#mustBeNewest = false;
    this.#publish();
  }

  /** Returns when the server ends the watch in peace. */
  async #watch(): Promise<void> {
    const { api, clock, list, random } = this.#dependencies;
    const timeoutMs = WATCH_MS * (1 + random());
    const beganMs = clock.now();
    const end = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, end.signal]);
    const overdue = clock.sleep(timeoutMs + OVERDUE_MS, { signal }).then(
      () => end.abort(new Error('the API server has fallen silent')),
      () => undefined,
    );
    let events = 0;
    try {
      const watch = api.watch<EndpointSlice>('endpointslices', {
        ...this.#selection(),
        resourceVersion: this.#version,
        timeoutMs,
        signal,
        onOpen: () => list.confirm(),
      });
      for await (const { type, object } of watch) {
        events += 1;
        this.#backoff.reset();
        this.#version = object.metadata?.resourceVersion ?? this.#version;
        if (type === 'BOOKMARK') {
          list.confirm();
          continue;
        }
        if (type === 'DELETED') this.#slices.delete(object.metadata?.name ?? '');
        else this.#put(object);
        this.#publish();
      }
    } finally {
      end.abort();
      await overdue;
    }
    if (clock.now() - beganMs >= SHORT_WATCH_MS) return;
    if (events === 0) throw new KubeError('Cannot watch endpointslices: the watch ended at once');
    await clock.sleep(SHORT_WATCH_MS, { signal: this.#stop.signal });
  }

  async #recover(kind: TroubleKind, error: unknown): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { clock, list, log, onTrouble } = this.#dependencies;
    const { namespace, service } = this.#options;
    const isGone = error instanceof KubeError && error.isGone;
    if (isGone) this.#mustBeNewest = true;
    // Only a cut connection leaves the version usable for sure.
    if (isGone || (error instanceof KubeError && error.status !== undefined)) this.#version = '';
    onTrouble?.(isGone ? 'expired' : kind);
    const reason = error instanceof Error ? error.message : String(error);
    if (!isGone) list.reportTrouble(reason);
    const retryAfterMs = error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
    const waitMs = Math.round(Math.max(retryAfterMs, this.#backoff.nextMs()));
    log.warn(
      { namespace, service, waitMs, reason },
      isGone ? 'too old a version to watch, listing anew' : 'cannot follow the members, they stay',
    );
    await clock.sleep(waitMs, { signal: this.#stop.signal }).catch(() => undefined);
  }

  #selection(): { namespace: string; labelSelector: string } {
    const { namespace, service } = this.#options;
    return { namespace, labelSelector: `kubernetes.io/service-name=${service}` };
  }

  #put(slice: EndpointSlice): void {
    const name = slice.metadata?.name ?? '';
    if (this.#slices.has(name) || this.#slices.size < MAX_SLICES) this.#slices.set(name, slice);
  }

  #publish(): void {
    this.#dependencies.list.replace(membersOf(this.#slices.values(), this.#options));
  }
}
