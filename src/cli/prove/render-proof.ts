import { formatBytes } from '../../report/render-report.ts';
import type { ProofOutcome, ProofProgress, ProofResult } from './proof-run.ts';

/** A proof as text for people: what it came to, then every difference. */
export function renderProof(proof: ProofResult): string {
  const { blobs, bytes, differences, images, isComplete, proven, servable, tookMs } = proof;
  const lines = [
    `${isComplete ? 'Proved' : 'STOPPED after'} ${proven} of ${images} images: a new node would get ` +
      `${servable} of them without their registries; ${blobs} blobs read once each, ` +
      `${formatBytes(bytes)} in ${formatSeconds(tookMs)}`,
    differences === 0
      ? `Every verdict agrees with its proof${isComplete ? '' : ', as far as it got'}`
      : `${differences} OF ${proven} VERDICTS DIFFER from their proofs:`,
    ...proof.outcomes.flatMap(differenceLines),
  ];
  return `${lines.join('\n')}\n`;
}

/**
 * How far a proof is, in a line without its end.
 *
 * @param totalBytes that are to be read, by the report
 */
export function renderProgress(progress: ProofProgress, totalBytes: number): string {
  const { bytes, differences, elapsedMs, images, proven } = progress;
  const leftBytes = Math.max(0, totalBytes - bytes);
  const left =
    bytes === 0 || leftBytes === 0
      ? ''
      : `, ${formatSeconds((elapsedMs * leftBytes) / bytes)} left`;
  return (
    `proved ${proven} of ${images} images, ${formatBytes(bytes)} of ${formatBytes(totalBytes)}` +
    `${left}, ${differences} ${differences === 1 ? 'difference' : 'differences'}`
  );
}

function differenceLines({ difference, image, platform }: ProofOutcome): string[] {
  return difference === null ? [] : [`  ${image}  ${platform}`, `      ${difference}`];
}

function formatSeconds(timeMs: number): string {
  const seconds = Math.round(timeMs / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
