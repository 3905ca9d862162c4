import { writeFile } from 'node:fs/promises';
import { buildProgram } from '../support/program-path.ts';
import { matches, parseBenchArguments, usage, type BenchArguments } from './arguments.ts';
import { benchBlobs, blobNames } from './blob-bench.ts';
import { benchKeeper, keeperNames } from './keeper-bench.ts';
import { describeMachine } from './machine.ts';
import { benchManifests, manifestNames } from './manifest-bench.ts';
import { benchMemory, memoryNames } from './memory-bench.ts';
import { benchOutages, outageNames } from './outage-bench.ts';
import { benchPulls, pullNames } from './pull-bench.ts';
import { benchReports, reportNames } from './report-bench.ts';
import { renderReport } from './report.ts';
import { benchRequests, requestNames } from './request-bench.ts';
import type { BenchResult } from './result.ts';
import type { BenchContext } from './rounds.ts';

/** The whole run takes no longer than this. */
const maxRunMs = 30 * 60_000;

interface Bench {
  readonly names: readonly string[];
  readonly needsRoot?: boolean;
  readonly run: (context: BenchContext) => Promise<BenchResult[]>;
}

const benches: readonly Bench[] = [
  { names: pullNames, needsRoot: true, run: benchPulls },
  { names: blobNames, run: benchBlobs },
  { names: manifestNames, run: benchManifests },
  { names: requestNames, run: benchRequests },
  { names: outageNames, run: benchOutages },
  { names: memoryNames, run: benchMemory },
  { names: reportNames, run: benchReports },
  { names: keeperNames, needsRoot: true, run: benchKeeper },
];

async function runBenches(options: BenchArguments, signal: AbortSignal): Promise<BenchResult[]> {
  const { only, pairs } = options;
  const startedMs = performance.now();
  const progress = (line: string): void => {
    const seconds = Math.round((performance.now() - startedMs) / 1000);
    process.stderr.write(`[${String(seconds).padStart(4)} s] ${line}\n`);
  };
  const wants = (name: string): boolean =>
    only.length === 0 || only.some((word) => matches(name, word));
  progress('building the program that ships');
  const program = await buildProgram();
  const results: BenchResult[] = [];
  for (const { names, needsRoot = false, run } of benches) {
    const wanted = names.filter(wants);
    if (wanted.length === 0) continue;
    if (needsRoot && process.getuid?.() !== 0) {
      progress(`${wanted.join(', ')} left out: containerd needs root`);
      continue;
    }
    signal.throwIfAborted();
    const found = await run({ program, pairs, signal, progress, wants });
    results.push(...found.filter(({ name }) => wants(name)));
  }
  return results;
}

async function main(): Promise<number> {
  const names = benches.flatMap((bench) => bench.names);
  const options = parseBenchArguments(process.argv.slice(2), names);
  if (options.help) {
    console.log(`${usage}\nResults: ${names.join(', ')}`);
    return 0;
  }
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stop.abort(new Error(`Cannot finish: ${name}`)));
  }
  const late = setTimeout(() => {
    stop.abort(new Error(`Cannot finish within ${maxRunMs / 60_000} minutes`));
  }, maxRunMs);
  try {
    const machine = describeMachine();
    const report = { results: await runBenches(options, stop.signal), machine };
    console.log(renderReport(report));
    if (options.json !== undefined) {
      await writeFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
    }
    const missed = report.results.filter(({ ok }) => ok === false);
    return missed.length > 0 && options.fail ? 1 : 0;
  } finally {
    clearTimeout(late);
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
