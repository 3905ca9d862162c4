/** One line of a bench, in the form that every machine-readable result of this project has. */
export interface BenchResult {
  readonly name: string;
  /** What was measured: the median over all rounds. */
  readonly value: number;
  readonly unit: string;
  /** What ran beside it in the same run, or null where there is nothing to compare with. */
  readonly baseline: string | null;
  /** The median of the rounds' own ratios, value to baseline. */
  readonly ratio: number | null;
  /** How many rounds. */
  readonly n: number;
  /** The bound, such as "<=1.15": on the ratio where there is one, else on the value. */
  readonly must: string | null;
  /** Whether the bound holds; null where there is none. */
  readonly ok: boolean | null;
}

/** What one round gave, first what is ours, then what stands beside it. */
export interface Pair {
  readonly own: number;
  readonly base: number;
}

/** What a result is called and what it has to reach. */
export interface ResultLabel {
  readonly name: string;
  readonly unit: string;
  readonly must?: string;
}

/**
 * Sums up rounds in which both sides ran one after the other: the ratio is taken round by round,
 * so that a slow moment of the machine weighs on both sides of it.
 *
 * @throws when there are no rounds
 */
export function pairedResult(
  label: ResultLabel & { readonly baseline: string },
  pairs: readonly Pair[],
): BenchResult {
  const ratio = round(median(pairs.map(({ own, base }) => own / base)));
  return {
    name: label.name,
    value: round(median(pairs.map(({ own }) => own))),
    unit: label.unit,
    baseline: label.baseline,
    ratio,
    n: pairs.length,
    must: label.must ?? null,
    ok: verdict(label.must, ratio),
  };
}

/** A result that stands alone. */
export function singleResult(label: ResultLabel, value: number, rounds: number): BenchResult {
  const rounded = round(value);
  return {
    name: label.name,
    value: rounded,
    unit: label.unit,
    baseline: null,
    ratio: null,
    n: rounds,
    must: label.must ?? null,
    ok: verdict(label.must, rounded),
  };
}

/**
 * The middle of some values; of an even number, the mean of the two in the middle.
 *
 * @throws when there are none
 */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  if (upper === undefined || lower === undefined)
    throw new Error('Cannot take a median of nothing');
  return (lower + upper) / 2;
}

/**
 * Whether a value keeps a bound such as "<=1.15" or ">=0.6".
 *
 * @returns null without a bound
 * @throws when the bound is written in another way
 */
function verdict(must: string | undefined, value: number): boolean | null {
  if (must === undefined) return null;
  const match = /^(?<sign>[<>])=(?<bound>\d+(?:\.\d+)?)$/.exec(must);
  if (match === null) throw new Error(`Cannot read the bound ${must}`);
  const bound = Number(match.groups?.['bound']);
  return match.groups?.['sign'] === '<' ? value <= bound : value >= bound;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
