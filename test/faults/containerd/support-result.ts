import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { workRoot } from '../../support/work-dir.ts';

/** How a pull ended. */
export type Outcome = 'succeeds' | 'fails' | 'hangs';

/** One pull: how it ended and how long that took. */
export interface PullResult {
  readonly outcome: Outcome;
  readonly seconds: number;
  /** containerd's words, where it does not succeed. */
  readonly reason?: string;
}

/** One fault, seen by a containerd three times. */
export interface CaseResult {
  readonly id: string;
  readonly title: string;
  /** containerd alone. */
  readonly direct: PullResult;
  readonly salvor: PullResult;
  /** containerd with a mirror whose process is dead. */
  readonly killed: PullResult;
}

/** All that was seen of one containerd version. */
export interface VersionResult {
  readonly version: string;
  /** The release that ran, in its own words. */
  readonly release: string;
  readonly configVersion: number;
  readonly pullPath: string;
  /** Size in bytes of ranges that are fetched in parallel; null: off. */
  readonly rangeBytes: number | null;
  /** A pull that takes longer than this is said to hang. */
  readonly patienceSeconds: number;
  readonly cases: readonly CaseResult[];
}

/** Where runs leave their results for `npm run docs:support`. */
export const resultsDirectory = join(workRoot, 'support');

/** Keeps what was seen of a version. */
export async function writeResult(result: VersionResult): Promise<void> {
  await mkdir(resultsDirectory, { recursive: true });
  const path = join(resultsDirectory, `${result.version}.json`);
  await writeFile(path, `${JSON.stringify(result, undefined, 2)}\n`);
}
