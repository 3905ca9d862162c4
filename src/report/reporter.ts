import { setImmediate as breathe } from 'node:timers/promises';
import type { NodeInventory } from '../rpc/inventory.ts';
import { AgentError } from '../rpc/agent-error.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { ReportMetrics } from './report-metrics.ts';
import type { Report, ReportMember } from './report.ts';
import type { ReportRules } from './verdict.ts';

/** A node to ask. */
export interface AskedMember {
  readonly name: string;
}

export interface ReporterOptions {
  /** How many members are asked at a time: what they say takes some megabytes each. */
  readonly maxAsked: number;
  /** How long one member may take, milliseconds. */
  readonly memberTimeoutMs: number;
  /** How old a report may be that is given to somebody who asks, milliseconds. */
  readonly maxAgeMs?: number;
}

export interface ReporterDependencies<M extends AskedMember> {
  /** Every member of the cluster, this node included. */
  readonly members: () => readonly M[];
  /** @throws AgentError when the member gives no answer */
  readonly ask: (
    member: M,
    limits: { readonly signal: AbortSignal; readonly timeoutMs: number },
  ) => Promise<NodeInventory>;
  readonly rules: () => ReportRules;
  readonly metrics: ReportMetrics;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

/** How far a report is. */
export interface ReportProgress {
  readonly isRunning: boolean;
  /** Members that have been asked and have answered, or will not. */
  readonly answered: number;
  readonly members: number;
}

interface MemberAnswer {
  readonly member: ReportMember;
  readonly inventory?: NodeInventory;
}

const DEFAULT_MAX_AGE_MS = 1000;

/** Makes reports: asks every member what it has and judges what all of it together amounts to. */
export class Reporter<M extends AskedMember> {
  readonly #options: Required<ReporterOptions>;
  readonly #dependencies: ReporterDependencies<M>;
  readonly #stopped = new AbortController();
  #last: { readonly report: Promise<Report>; readonly atMs: number | undefined } | undefined;
  #progress: ReportProgress = { isRunning: false, answered: 0, members: 0 };

  constructor(options: ReporterOptions, dependencies: ReporterDependencies<M>) {
    this.#options = { maxAgeMs: DEFAULT_MAX_AGE_MS, ...options };
    this.#dependencies = dependencies;
  }

  /** How far the report is that is being made, or the last one that was. */
  get progress(): ReportProgress {
    return this.#progress;
  }

  /**
   * A report of this moment, or of a second ago; who asks while one is being made gets that one.
   * Members that give no answer are named in it, and nothing about them is thrown.
   */
  current(): Promise<Report> {
    const { clock } = this.#dependencies;
    const last = this.#last;
    const ageMs = last?.atMs === undefined ? 0 : clock.now() - last.atMs;
    if (last !== undefined && ageMs >= 0 && ageMs < this.#options.maxAgeMs) return last.report;
    const report = this.#make();
    this.#last = { report, atMs: undefined };
    const finished = (atMs: number | undefined): void => {
      if (this.#last?.report !== report) return;
      this.#last = atMs === undefined ? undefined : { report, atMs };
    };
    report.then(
      () => finished(clock.now()),
      () => finished(undefined),
    );
    return report;
  }

  /** Ends what is under way; reports that are still asked for say that nobody answered. */
  stop(): void {
    this.#stopped.abort(new Error('Cannot make a report: the agent stops'));
  }

  async #make(): Promise<Report> {
    const { clock, log, metrics, rules } = this.#dependencies;
    const startedMs = performance.now();
    const takenAtMs = clock.now();
    const members = this.#dependencies.members();
    this.#progress = { isRunning: true, answered: 0, members: members.length };
    try {
      const answers = await this.#askAll(members);
      // Most agents are never asked for a report, and would pay for its code in memory.
      const [{ buildReport }, { ClusterContent }] = await Promise.all([
        import('./build-report.ts'),
        import('./cluster-content.ts'),
      ]);
      const content = new ClusterContent();
      // In the order of the members, so that who answers first changes nothing.
      for (const { inventory } of answers) {
        if (inventory !== undefined) content.add(inventory);
        await breathe();
      }
      const report = await buildReport(content, rules(), {
        members: answers.map(({ member }) => member),
        takenAtMs,
        tookMs: () => performance.now() - startedMs,
      });
      metrics.record(report);
      const { summary, isComplete, tookMs } = report;
      log.info({ ...summary, isComplete, members: members.length, tookMs }, 'report');
      return report;
    } finally {
      this.#progress = { ...this.#progress, isRunning: false };
    }
  }

  async #askAll(members: readonly M[]): Promise<MemberAnswer[]> {
    const answers = new Map<M, MemberAnswer>();
    const waiting = members.values();
    const work = async (): Promise<void> => {
      for (const member of waiting) {
        answers.set(member, await this.#askOne(member));
        this.#progress = { ...this.#progress, answered: answers.size };
      }
    };
    await Promise.all(Array.from({ length: this.#options.maxAsked }, work));
    return members.flatMap((member) => answers.get(member) ?? []);
  }

  async #askOne(member: M): Promise<MemberAnswer> {
    const { name: node } = member;
    try {
      const answer = await this.#ask(member);
      // By the name under which the cluster knows it, whatever it calls itself.
      const inventory = { ...answer, facts: { ...answer.facts, node } };
      const { store, runtimeVersion, snapshotter, discardsLayers, warnings } = inventory.facts;
      const facts = { store, runtimeVersion, snapshotter, discardsLayers, warnings };
      const images = countTags(inventory);
      return { inventory, member: { node, state: 'answered', ...facts, images } };
    } catch (error) {
      const failure = AgentError.from(error, `Cannot take the inventory of ${node}`);
      this.#dependencies.log.warn({ member: node, err: failure }, 'a member is not in the report');
      const state = failure.kind === 'unimplemented' ? 'too-old' : 'no-answer';
      return { member: { node, state, error: failure.message, warnings: [] } };
    }
  }

  /** A member that ignores its deadline costs no more than one that keeps it. */
  async #ask(member: M): Promise<NodeInventory> {
    const { memberTimeoutMs: timeoutMs } = this.#options;
    const late = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, late.signal]);
    const { promise: ended, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setTimeout(() => {
      const text = `Cannot take the inventory of ${member.name}: no answer in ${timeoutMs} ms`;
      late.abort(new AgentError('deadline', text));
    }, timeoutMs);
    try {
      signal.throwIfAborted();
      return await Promise.race([this.#dependencies.ask(member, { signal, timeoutMs }), ended]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  }
}

/** How many images a node has, as people count them. */
function countTags({ images }: NodeInventory): number {
  return images.filter(({ name }) => !name.includes('@') && !name.startsWith('sha256:')).length;
}
