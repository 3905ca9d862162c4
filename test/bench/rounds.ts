import type { ProgramPath } from '../support/program-path.ts';
import type { Pair } from './result.ts';

/** What every bench needs to know of the run that it is part of. */
export interface BenchContext {
  /** The program that is measured: the one that ships. */
  readonly program: ProgramPath;
  /** Rounds that count. */
  readonly pairs: number;
  /** Aborts when the whole run takes too long or is broken off. */
  readonly signal: AbortSignal;
  /** Tells a person what is going on, a line each. */
  readonly progress: (line: string) => void;
  /** Whether a result of this name is wanted. */
  readonly wants: (name: string) => boolean;
}

/** A measurement that can be repeated: what it measured, by name. */
export type Side<K extends string> = () => Promise<Readonly<Record<K, number>>>;

/**
 * Runs two sides in turn, ours first: once to warm up, then as often as counts.
 *
 * @param options.show the measured name that progress lines give, with its unit
 * @returns for each measured name, what the rounds gave
 */
export async function runPairs<K extends string>(
  context: BenchContext,
  options: {
    readonly name: string;
    readonly show: K;
    readonly unit: string;
    readonly own: Side<K>;
    readonly base: Side<K>;
  },
): Promise<Readonly<Record<K, readonly Pair[]>>> {
  const { name, show, unit } = options;
  const rounds: { own: Readonly<Record<K, number>>; base: Readonly<Record<K, number>> }[] = [];
  for (let round = 0; round <= context.pairs; round += 1) {
    context.signal.throwIfAborted();
    const own = await options.own();
    const base = await options.base();
    if (round > 0) rounds.push({ own, base });
    const which = round === 0 ? 'warming up' : `${round}/${context.pairs}`;
    const ratio = (own[show] / base[show]).toFixed(3);
    const figures = `${format(own[show])} against ${format(base[show])} ${unit}`;
    context.progress(`${name} ${which}: ${figures}, ratio ${ratio}`);
  }
  const names = Object.keys(rounds[0]?.own ?? {}) as K[];
  const pairsOf = (key: K): Pair[] =>
    rounds.map(({ own, base }) => ({ own: own[key], base: base[key] }));
  return Object.fromEntries(names.map((key) => [key, pairsOf(key)])) as Record<K, Pair[]>;
}

/** A number as a person reads it. */
export function format(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
