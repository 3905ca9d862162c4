/** A stretch of time, milliseconds of one clock; one that has not ended has no end. */
interface Stretch {
  readonly fromMs: number;
  toMs: number;
}

const aroundMs = 2000;

/** A pull, as far as it matters for whether it could have been served. */
export interface PulledAt {
  readonly node: string;
  /** Nodes that hold all of it. */
  readonly holders: readonly string[];
  readonly fromMs: number;
  readonly toMs: number;
}

/**
 * When what was down. It says of a pull whether it was servable: by what was done to the world,
 * never by what Salvor made of it.
 */
export class Schedule {
  readonly #graceMs: number;
  readonly #downTimes = new Map<string, Stretch[]>();

  /** @param options.graceMs how long after it is back a process still counts as away */
  constructor(options: { readonly graceMs: number }) {
    this.#graceMs = options.graceMs;
  }

  /**
   * Something goes down or becomes unwell; the returned function says when it is back.
   *
   * @param what "upstream", "agent/<node>" or "registry/<node>"
   */
  down(what: string, nowMs: number): (nowMs: number) => void {
    const stretch: Stretch = { fromMs: nowMs, toMs: Number.POSITIVE_INFINITY };
    const known = this.#downTimes.get(what) ?? [];
    known.push(stretch);
    this.#downTimes.set(what, known);
    return (backMs) => {
      stretch.toMs = backMs + (what === 'upstream' ? 0 : this.#graceMs);
    };
  }

  /** Whether the node's registry was there throughout, and with it somebody who could serve. */
  isServable(pull: PulledAt): boolean {
    const { node, holders } = pull;
    if (!this.#isUp(`registry/${node}`, pull)) return false;
    if (this.#isUp('upstream', pull)) return true;
    // The node's own agent knows whom to ask.
    if (!this.#isUp(`agent/${node}`, pull)) return false;
    return holders.some((holder) => this.#isUp(`agent/${holder}`, pull));
  }

  /** What was down around a pull, for people: "agent/y 1.2–3.4 s". */
  around({ fromMs, toMs }: Pick<PulledAt, 'fromMs' | 'toMs'>): string[] {
    const seconds = (ms: number): string => (ms / 1000).toFixed(2);
    return [...this.#downTimes].flatMap(([what, times]) =>
      times
        .filter((time) => toMs >= time.fromMs - aroundMs && fromMs <= time.toMs + aroundMs)
        .map((time) => `${what} ${seconds(time.fromMs)}–${seconds(time.toMs)} s`),
    );
  }

  #isUp(what: string, { fromMs, toMs }: PulledAt): boolean {
    const times = this.#downTimes.get(what) ?? [];
    return times.every((time) => toMs < time.fromMs || fromMs > time.toMs);
  }
}
