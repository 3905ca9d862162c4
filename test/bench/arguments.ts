import { parseArgs } from 'node:util';

/** What the command line asks for. */
export interface BenchArguments {
  readonly help: boolean;
  /** Where the results go as JSON, beside the table. */
  readonly json?: string;
  /** Names of results, or beginnings of names; all of them when empty. */
  readonly only: readonly string[];
  readonly pairs: number;
  /** Whether a bound that is missed makes the exit code 1. */
  readonly fail: boolean;
}

const defaultPairs = 5;
const maxPairs = 100;

export const usage = `Measures Salvor beside nginx, docker-registry and a plain pull, on this machine.

Usage: npm run bench -- [options]

  --json FILE    write the results to FILE as well
  --only NAMES   only these results, with commas between; "blob" means all that begin with "blob.",
                 "failover" and "open.rate" what an outage costs, "herd.manifest" what a crowd does
  --pairs N      rounds of each comparison that count (default ${defaultPairs})
  --no-fail      end with 0 even where a bound is missed
  --help         this text

Needs root for pull.*, keeper.* and for memory.idle over containerd. Ends by itself, after about 20 minutes
with all results, or with 2 when it takes longer than 30.
`;

/**
 * Reads the command line.
 *
 * @param names every result there is
 * @throws with a sentence for people when it makes no sense
 */
export function parseBenchArguments(
  argv: readonly string[],
  names: readonly string[],
): BenchArguments {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      help: { type: 'boolean', default: false },
      json: { type: 'string' },
      only: { type: 'string', default: '' },
      pairs: { type: 'string', default: String(defaultPairs) },
      fail: { type: 'boolean', default: true },
    },
    allowNegative: true,
  });
  const pairs = Number(values.pairs);
  if (!Number.isInteger(pairs) || pairs < 1 || pairs > maxPairs) {
    throw new Error(`Cannot run ${values.pairs} pairs: give a number from 1 to ${maxPairs}`);
  }
  const only = values.only.split(',').filter(Boolean);
  const unknown = only.filter((word) => !names.some((name) => matches(name, word)));
  if (unknown.length > 0) {
    throw new Error(`Cannot measure ${unknown.join(', ')}: there are ${names.join(', ')}`);
  }
  const { help, fail, json } = values;
  return { help, only, pairs, fail, ...(json === undefined ? {} : { json }) };
}

/** Whether a result's name is meant by a word of `--only`. */
export function matches(name: string, word: string): boolean {
  return name === word || name.startsWith(`${word}.`);
}
