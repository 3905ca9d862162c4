// A process that asks two servers for the same thing, one request after the other, over a kept
// connection to each: node paired-requests.ts '{"own":{…},"base":{…},"count":400}'. Prints one JSON
// line at the end. Who comes first changes from pair to pair, so that neither side always finds
// the machine as the other has left it.
import { RawConnection, type RawQuestion } from './raw-connection.ts';

/** What to ask, of whom and how often. */
export interface PairedRequestsPlan {
  readonly own: RawQuestion;
  readonly base: RawQuestion;
  /** Requests to each. */
  readonly count: number;
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
  for (let index = 0; index < plan.count; index += 1) {
    if (index % 2 === 0) report.own.push(await own.ask());
    report.base.push(await base.ask());
    if (index % 2 === 1) report.own.push(await own.ask());
  }
  own.close();
  base.close();
  console.log(JSON.stringify(report satisfies PairedRequestsReport));
}
