import { credentials } from '@grpc/grpc-js';
import type { Config } from '../../config/schema.ts';
import type { Digest } from '../../oci/digest.ts';
import { goArchitecture } from '../../oci/manifest.ts';
import type { Report, ReportImage } from '../../report/report.ts';
import { AgentClient } from '../../rpc/agent-client.ts';
import { systemClock } from '../../telemetry/clock.ts';
import { ProofClient } from './proof-client.ts';
import { runProof, type ProofProgress, type ProofResult, type ProvenImage } from './proof-run.ts';
import { Prover } from './prover.ts';
import { renderProgress } from './render-proof.ts';
import { SharedPace } from './shared-pace.ts';

export interface ProveOptions {
  /** What is read of nodes, at most, by all pulls of the proof together. */
  readonly bytesPerSecond: number;
  /** Images that are pulled at a time. */
  readonly concurrency: number;
  /** Told now and then how far it is; left out: nobody is. */
  readonly onProgress?: (line: string) => void;
  readonly signal: AbortSignal;
}

/** For the headers of one answer, and for each next piece of a body, milliseconds. */
const STEP_TIMEOUT_MS = 30_000;
/** How often an image is pulled that should be there, as kubelet would. */
const ATTEMPTS = 3;
const PROGRESS_MS = 2000;
const RECORD_TIMEOUT_MS = 5000;
const WINDOW_BYTES = 64 * 1024;

/**
 * Puts every verdict of a report to the proof: pulls each image from this node's registry, on its
 * socket for proofs, as a new node would with every upstream dead. What it came to is told to the
 * node's agent, for its metrics.
 *
 * @returns what was proven until the signal aborted, or all of it
 * @throws when the registry cannot be asked at all
 */
export async function proveReport(
  config: Pick<Config, 'registry'>,
  report: Pick<Report, 'images'>,
  options: ProveOptions & {
    /** Told what went wrong beside the proof. */
    readonly onTrouble: (message: string) => void;
  },
): Promise<ProofResult> {
  const { proveSocket } = config.registry;
  if (proveSocket === '') throw new Error('Cannot prove anything: registry.proveSocket is empty');
  const { bytesPerSecond, concurrency, signal } = options;
  const client = new ProofClient({
    socketPath: proveSocket,
    stepTimeoutMs: STEP_TIMEOUT_MS,
    maxSockets: concurrency,
  });
  const clock = systemClock;
  const pace = new SharedPace({ bytesPerSecond }, { clock });
  const prover = new Prover({ attempts: ATTEMPTS }, { client, pace, clock });
  const images = report.images.map(toProvenImage);
  const progress = new ProgressLine({ images: images.length, report, options }, prover);
  try {
    const result = await runProof(
      images,
      { concurrency, signal, onProgress: (now) => progress.note(now) },
      { prover, clock },
    );
    await record(config, result, options);
    return result;
  } finally {
    progress.stop();
    client.close();
  }
}

/** An image of a report as it is put to the proof. */
function toProvenImage(image: ReportImage): ProvenImage {
  const { digest, parts, platform, runsOn, verdict } = image;
  const manifests = parts.flatMap((part): Digest[] =>
    part.role === 'index' || part.role === 'manifest' ? [part.digest] : [],
  );
  return {
    image: image.image,
    // Where nothing tells what it is for, this node stands for all.
    platform: runsOn ?? { os: 'linux', architecture: goArchitecture(process.arch) },
    platformName: platform,
    manifests: new Set(manifests),
    digest,
    verdict,
    isServable: verdict !== 'not-servable',
  };
}

/** What a proof will read if every verdict is right, bytes; what images share counts once. */
function bytesToRead({ images }: Pick<Report, 'images'>): number {
  const sizes = new Map<Digest, number>();
  for (const { parts, verdict } of images) {
    if (verdict === 'not-servable') continue;
    for (const { digest, sizeBytes } of parts) sizes.set(digest, sizeBytes);
  }
  return [...sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
}

/** Tells how far it is, also while one large image takes its time. */
class ProgressLine {
  readonly #timer: NodeJS.Timeout;
  #last: ProofProgress;

  constructor(
    parts: {
      readonly images: number;
      readonly report: Pick<Report, 'images'>;
      readonly options: Pick<ProveOptions, 'onProgress'>;
    },
    prover: Pick<Prover, 'readBytes'>,
  ) {
    const { images, options, report } = parts;
    const { onProgress } = options;
    this.#last = { images, proven: 0, differences: 0, bytes: 0, elapsedMs: 0 };
    const totalBytes = bytesToRead(report);
    const startedMs = performance.now();
    // It also keeps the process alive while nothing but a pause for the bandwidth is under way.
    this.#timer = setInterval(() => {
      const elapsedMs = performance.now() - startedMs;
      const now = { ...this.#last, bytes: prover.readBytes, elapsedMs };
      onProgress?.(renderProgress(now, totalBytes));
    }, PROGRESS_MS);
  }

  note(progress: ProofProgress): void {
    this.#last = progress;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

async function record(
  { registry }: Pick<Config, 'registry'>,
  proof: ProofResult,
  options: { readonly onTrouble: (message: string) => void },
): Promise<void> {
  if (registry.agentSocket === '') return;
  const target = `unix:${registry.agentSocket}`;
  const agent = new AgentClient(
    { target, name: 'the own agent', windowBytes: WINDOW_BYTES },
    { credentials: credentials.createInsecure() },
  );
  const { bytes, differences, isComplete, proven, servable, startedAt, tookMs } = proof;
  const endedAtMs = Date.parse(startedAt) + tookMs;
  try {
    const summary = { endedAtMs, tookMs, isComplete, images: proven, servable, differences, bytes };
    await agent.recordProof(summary, { timeoutMs: RECORD_TIMEOUT_MS });
  } catch (error) {
    // The proof stands; it is only not in the metrics.
    options.onTrouble(error instanceof Error ? error.message : String(error));
  } finally {
    agent.close();
  }
}
