import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Gauge, type Registry } from 'prom-client';
import type { ProofSummary } from '../rpc/proof-summary.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

/** Everything that a file of ours says, so that any other is left alone. */
const NUMBERS = ['endedAtMs', 'tookMs', 'images', 'servable', 'differences', 'bytes'] as const;

/**
 * What the last proof of a report's verdicts came to, and how long ago: in the metrics, and in a
 * file, so that it outlives the process.
 */
export class LastProof {
  readonly #path: string | undefined;
  readonly #log: Pick<Logger, 'info' | 'warn'>;
  #last: ProofSummary | undefined;

  /** @param options.path of the file; undefined: there is none */
  constructor(
    options: { readonly path: string | undefined },
    dependencies: {
      register: Registry;
      clock: Pick<Clock, 'now'>;
      log: Pick<Logger, 'info' | 'warn'>;
    },
  ) {
    this.#path = options.path;
    this.#log = dependencies.log;
    registerMetrics(dependencies.register, {
      last: () => this.#last,
      nowMs: () => dependencies.clock.now(),
    });
  }

  /** Reads the file, if there is one. What cannot be read is reported and counts as none. */
  async load(): Promise<void> {
    if (this.#path === undefined) return;
    try {
      this.#last = parseSummary(await readFile(this.#path, 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      this.#log.warn({ path: this.#path, err: error }, 'cannot read what the last proof came to');
    }
  }

  /** A proof has ended. That it cannot be written down is reported, and forgiven. */
  async record(proof: ProofSummary): Promise<void> {
    this.#last = proof;
    this.#log.info({ ...proof }, 'verdicts were put to the proof');
    if (this.#path === undefined) return;
    try {
      await mkdir(dirname(this.#path), { recursive: true, mode: 0o750 });
      const fresh = `${this.#path}.new`;
      await writeFile(fresh, JSON.stringify(proof), { mode: 0o640 });
      await rename(fresh, this.#path);
    } catch (error) {
      this.#log.warn({ path: this.#path, err: error }, 'cannot write what the proof came to');
    }
  }
}

function parseSummary(text: string): ProofSummary {
  const json = JSON.parse(text) as Partial<ProofSummary> | null;
  const isWhole = NUMBERS.every((name) => Number.isFinite(json?.[name]));
  if (!isWhole || typeof json?.isComplete !== 'boolean') throw new Error('It says something else');
  return json as ProofSummary;
}

function registerMetrics(
  register: Registry,
  sources: { readonly last: () => ProofSummary | undefined; readonly nowMs: () => number },
): void {
  const show = (name: string, help: string, value: (proof: ProofSummary) => number): Gauge => {
    return new Gauge({
      name: `salvor_agent_proof_${name}`,
      help: `${help} Absent before the first proof from this node.`,
      registers: [register],
      collect() {
        this.reset();
        const proof = sources.last();
        if (proof === undefined) this.remove();
        else this.set(value(proof));
      },
    });
  };
  show(
    'timestamp_seconds',
    'When the last proof ended, in seconds since the epoch.',
    (proof) => proof.endedAtMs / 1000,
  );
  show(
    'age_seconds',
    'How long ago the last proof ended.',
    ({ endedAtMs }) => Math.max(0, sources.nowMs() - endedAtMs) / 1000,
  );
  show('complete', 'Whether the last proof came to its end: 1, else 0.', (proof) =>
    proof.isComplete ? 1 : 0,
  );
  show(
    'images',
    'Images that the last proof pulled, each once for each platform.',
    (proof) => proof.images,
  );
  show(
    'servable_images',
    'Images of the last proof that a new node would get.',
    (proof) => proof.servable,
  );
  show(
    'differences',
    'Images of the last proof whose verdict in the report was another.',
    (proof) => proof.differences,
  );
  show('read_bytes', 'Bytes that the last proof read from nodes and hashed.', ({ bytes }) => bytes);
}
