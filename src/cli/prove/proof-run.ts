import type { Digest } from '../../oci/digest.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Prover, ProofSubject, SubjectProof } from './prover.ts';

/** The version of the result's form; raised when something in it changes its meaning. */
const PROOF_SCHEMA = 1;

/** An image on one platform as the report has it. */
export interface ProvenImage extends ProofSubject {
  /** What it names, by the report. */
  readonly digest: Digest | null;
  /** The platform as people write it. */
  readonly platformName: string;
  /** "survives", "single-copy", "not-servable". */
  readonly verdict: string;
}

/** What one image came to. */
export interface ProofOutcome {
  readonly image: string;
  readonly platform: string;
  readonly verdict: string;
  readonly proof: 'servable' | 'not-servable';
  /** What the registry says that it names; null where it does not say. */
  readonly digest: Digest | null;
  /** Why it cannot be pulled; null when it can. */
  readonly reason: string | null;
  /** In what verdict and proof differ; null when they agree. */
  readonly difference: string | null;
}

/** What a proof came to. */
export interface ProofResult {
  readonly schema: typeof PROOF_SCHEMA;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly tookMs: number;
  /** Every image was pulled; otherwise it was stopped before. */
  readonly isComplete: boolean;
  /** How many images there were, each counted once for each platform, and how many were pulled. */
  readonly images: number;
  readonly proven: number;
  readonly servable: number;
  readonly differences: number;
  /** Configs and layers that were read and hashed, each once. */
  readonly blobs: number;
  /** Of all that was read, manifests included. */
  readonly bytes: number;
  /** In the order of the report, as far as it got. */
  readonly outcomes: readonly ProofOutcome[];
}

/** How far a proof has got. */
export interface ProofProgress {
  readonly images: number;
  readonly proven: number;
  readonly differences: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/**
 * Puts verdicts to the proof, some images at a time. Ends early, with what was proven so far, when
 * the signal aborts.
 *
 * @param options.onProgress told after each image
 * @throws when the registry cannot be asked at all
 */
export async function runProof(
  images: readonly ProvenImage[],
  options: {
    readonly concurrency: number;
    readonly signal: AbortSignal;
    readonly onProgress?: (progress: ProofProgress) => void;
  },
  dependencies: { prover: Pick<Prover, 'prove' | 'readBytes' | 'readBlobs'>; clock: Clock },
): Promise<ProofResult> {
  const { clock, prover } = dependencies;
  const startedAtMs = clock.now();
  const outcomes = new Map<number, ProofOutcome>();
  let differences = 0;
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const queue = images.entries();
  const work = async (): Promise<void> => {
    for (const [index, image] of queue) {
      if (signal.aborted) return;
      const outcome = outcomeOf(image, await prover.prove(image, signal));
      outcomes.set(index, outcome);
      if (outcome.difference !== null) differences += 1;
      options.onProgress?.({
        images: images.length,
        proven: outcomes.size,
        differences,
        bytes: prover.readBytes,
        elapsedMs: clock.now() - startedAtMs,
      });
    }
  };
  const workers = Array.from({ length: options.concurrency }, () =>
    work().catch((error: unknown) => {
      // What ends because it was told to is no failure.
      if (!signal.aborted) failed.abort(error);
    }),
  );
  await Promise.all(workers);
  failed.signal.throwIfAborted();
  const ordered = [...outcomes].sort(([one], [other]) => one - other).map(([, outcome]) => outcome);
  return {
    schema: PROOF_SCHEMA,
    startedAt: new Date(startedAtMs).toISOString(),
    tookMs: Math.round(clock.now() - startedAtMs),
    isComplete: ordered.length === images.length,
    images: images.length,
    proven: ordered.length,
    servable: ordered.filter(({ proof }) => proof === 'servable').length,
    differences,
    blobs: prover.readBlobs,
    bytes: prover.readBytes,
    outcomes: ordered,
  };
}

function outcomeOf(image: ProvenImage, proof: SubjectProof): ProofOutcome {
  return {
    image: image.image,
    platform: image.platformName,
    verdict: image.verdict,
    proof: proof.isServable ? 'servable' : 'not-servable',
    digest: proof.digest ?? null,
    reason: proof.reason ?? null,
    difference: differenceBetween(image, proof),
  };
}

function differenceBetween(image: ProvenImage, proof: SubjectProof): string | null {
  if (proof.isServable !== image.isServable) {
    return proof.isServable
      ? `the verdict is ${image.verdict}, but all of it can be pulled`
      : `the verdict is ${image.verdict}, but it cannot be pulled: ${proof.reason ?? 'no reason'}`;
  }
  if (proof.isServable && image.digest !== null && proof.digest !== image.digest) {
    return `the report says that it names ${image.digest}, but a pull gets ${proof.digest ?? 'none'}`;
  }
  return null;
}
