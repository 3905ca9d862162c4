// A process that asks two servers for the same things, one request after the other, over a kept
// connection to each: node paired-requests.ts '{"own":{…},"base":{…},"paths":[{"own":…,"base":…}]}'.
// Prints one JSON line at the end. Who comes first changes from pair to pair, so that neither side
// always finds the machine as the other has left it.
import { RawConnection, type RawTarget } from './raw-connection.ts';

/** What to ask of whom. */
export interface PairedRequestsPlan {
  readonly own: RawTarget;
  readonly base: RawTarget;
  /** In order, with their queries; one request to each side for each pair. */
  readonly paths: readonly { readonly own: string; readonly base: string }[];
}

/** How long each answer took, milliseconds, pair by pair. */
export interface PairedRequestsReport {
  readonly own: readonly number[];
  readonly base: readonly number[];
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? '{}') as PairedRequestsPlan;
  const own = await RawConnection.open(plan.own);
  const base = await RawConnection.open(plan.base);
  const report: { own: number[]; base: number[] } = { own: [], base: [] };
  for (const [index, paths] of plan.paths.entries()) {
    if (index % 2 === 0) report.own.push(await own.ask(paths.own));
    report.base.push(await base.ask(paths.base));
    if (index % 2 === 1) report.own.push(await own.ask(paths.own));
  }
  own.close();
  base.close();
  console.log(JSON.stringify(report satisfies PairedRequestsReport));
}
