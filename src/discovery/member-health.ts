import { Silence } from '../rpc/silence.ts';

/** A member that failed so often in a row is not waited for as long as others. */
const SUSPECT_AFTER = 2;
/** A member's failures are forgotten after this long, milliseconds. */
const FORGET_MS = 30_000;

export interface MemberHealthOptions {
  /** How long a member may take to answer, milliseconds, as below. */
  readonly timeoutMs: number;
  /** The same for one that has failed to answer lately. */
  readonly suspectTimeoutMs: number;
}

interface Record {
  failures: number;
  lastFailureMs: number;
  readonly silence: Silence;
}

/**
 * Remembers which members have not answered lately, so that a dead node costs every lookup little.
 * They are still asked: one that comes back is known at once.
 */
export class MemberHealth {
  readonly #options: MemberHealthOptions;
  readonly #now: () => number;
  readonly #records = new Map<string, Record>();

  constructor(options: MemberHealthOptions, dependencies: { now?: () => number } = {}) {
    this.#options = options;
    this.#now = dependencies.now ?? Date.now;
  }

  /** How long to wait for a member, milliseconds. */
  timeoutMs(name: string): number {
    return this.isSuspect(name) ? this.#options.suspectTimeoutMs : this.#options.timeoutMs;
  }

  /** Whether a member has failed to answer lately, and more than once. */
  isSuspect(name: string): boolean {
    const record = this.#records.get(name);
    const isFresh = record !== undefined && this.#now() - record.lastFailureMs < FORGET_MS;
    return isFresh && record.failures >= SUSPECT_AFTER;
  }

  recordAnswer(name: string): void {
    this.#records.delete(name);
  }

  recordFailure(name: string): void {
    const nowMs = this.#now();
    const known = this.#records.get(name);
    const silence = known?.silence ?? new Silence();
    silence.note(nowMs);
    const isFresh = known !== undefined && nowMs - known.lastFailureMs < FORGET_MS;
    const failures = isFresh ? known.failures + 1 : 1;
    this.#records.set(name, { failures, lastFailureMs: nowMs, silence });
  }

  /** For how long it makes sense to ask a member again that gives no answer, milliseconds. */
  patienceMs(name: string): number {
    return (this.#records.get(name)?.silence ?? new Silence()).patienceMs(this.#now());
  }

  /** Forgets members that have left, so that their number stays that of the cluster. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const name of this.#records.keys()) if (!names.has(name)) this.#records.delete(name);
  }
}
