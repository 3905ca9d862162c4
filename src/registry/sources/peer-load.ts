/** A node's failures count half as much after this long, milliseconds. */
const HALF_LIFE_MS = 10_000;
/** Below this, failures are forgotten. */
const NEGLIGIBLE = 0.05;

interface Load {
  running: number;
  penalty: number;
  penaltyAtMs: number;
}

/**
 * How much each node is doing for this registry at the moment, and how it has done lately: what
 * decides which of several holders is asked.
 */
export class PeerLoad {
  readonly #now: () => number;
  readonly #byNode = new Map<string, Load>();
  #sweptAtMs: number;

  constructor(dependencies: { now?: () => number } = {}) {
    this.#now = dependencies.now ?? Date.now;
    this.#sweptAtMs = this.#now();
  }

  /** How many nodes there is something to say about. */
  get size(): number {
    return this.#byNode.size;
  }

  /** Notes that a node has begun to send; the returned function notes that it has ended. */
  begin(node: string): () => void {
    const load = this.#load(node);
    load.running += 1;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      load.running -= 1;
      this.#forgetIfIdle(node, load);
    };
  }

  /** A node has failed to give what it had promised. */
  recordFailure(node: string): void {
    const load = this.#load(node);
    load.penalty = this.#penalty(load) + 1;
    load.penaltyAtMs = this.#now();
  }

  /** What asking the node costs: streams that it sends already, and its recent failures. */
  cost(node: string): number {
    const load = this.#byNode.get(node);
    if (load === undefined) return 0;
    // A failure weighs like several streams, so that a sick node is the last resort.
    return load.running + 8 * this.#penalty(load);
  }

  #load(node: string): Load {
    const known = this.#byNode.get(node);
    if (known !== undefined) return known;
    this.#sweep();
    const load = { running: 0, penalty: 0, penaltyAtMs: 0 };
    this.#byNode.set(node, load);
    return load;
  }

  #penalty(load: Load): number {
    const halves = (this.#now() - load.penaltyAtMs) / HALF_LIFE_MS;
    const penalty = load.penalty * 0.5 ** halves;
    return penalty < NEGLIGIBLE ? 0 : penalty;
  }

  /** Forgets nodes that failed once and were never asked again: most likely they have left. */
  #sweep(): void {
    const nowMs = this.#now();
    if (nowMs - this.#sweptAtMs < HALF_LIFE_MS) return;
    this.#sweptAtMs = nowMs;
    for (const [node, load] of this.#byNode) this.#forgetIfIdle(node, load);
  }

  #forgetIfIdle(node: string, load: Load): void {
    if (load.running === 0 && this.#penalty(load) === 0) this.#byNode.delete(node);
  }
}
