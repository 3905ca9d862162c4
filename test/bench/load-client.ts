import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { BlobReadPlan, BlobReadReport } from './blob-reader.ts';
import type { HerdPlan, HerdReport } from './herd.ts';
import type { ManifestLoadPlan, ManifestLoadReport } from './manifest-load.ts';
import type { PairedRequestsPlan, PairedRequestsReport } from './paired-requests.ts';

const run = promisify(execFile);
const timeoutMs = 180_000;
const maxReportBytes = 16 * 1024 * 1024;

/** The arguments with which node runs the reader of blobs. */
export function blobReaderArguments(plan: BlobReadPlan): string[] {
  return [join(import.meta.dirname, 'blob-reader.ts'), JSON.stringify(plan)];
}

/**
 * Reads blobs in a process of its own.
 *
 * @throws when not all bytes come within three minutes
 */
export async function readBlobs(plan: BlobReadPlan, signal: AbortSignal): Promise<BlobReadReport> {
  return (await runNode(blobReaderArguments(plan), signal)) as BlobReadReport;
}

/**
 * Asks for a manifest as often as it goes, in a process of its own.
 *
 * @throws on any answer that is not 200
 */
export async function loadManifests(
  plan: ManifestLoadPlan,
  signal: AbortSignal,
): Promise<ManifestLoadReport> {
  const arguments_ = [join(import.meta.dirname, 'manifest-load.ts'), JSON.stringify(plan)];
  return (await runNode(arguments_, signal)) as ManifestLoadReport;
}

/**
 * Asks two servers for the same things in turn, in a process of its own.
 *
 * @throws on any answer that is not 200
 */
export async function askInPairs(
  plan: PairedRequestsPlan,
  signal: AbortSignal,
): Promise<PairedRequestsReport> {
  const arguments_ = [join(import.meta.dirname, 'paired-requests.ts'), JSON.stringify(plan)];
  return (await runNode(arguments_, signal)) as PairedRequestsReport;
}

/**
 * Lets many clients ask for the same thing at once, in a process of their own.
 *
 * @throws on any answer that is not 200
 */
export async function releaseHerd(plan: HerdPlan, signal: AbortSignal): Promise<HerdReport> {
  const arguments_ = [join(import.meta.dirname, 'herd.ts'), JSON.stringify(plan)];
  return (await runNode(arguments_, signal)) as HerdReport;
}

async function runNode(arguments_: readonly string[], signal: AbortSignal): Promise<unknown> {
  const options = { signal, timeout: timeoutMs, maxBuffer: maxReportBytes };
  const { stdout } = await run(process.execPath, arguments_, options);
  return JSON.parse(stdout);
}
