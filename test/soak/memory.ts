import { setTimeout as delay } from 'node:timers/promises';
import { residentBytes } from '../support/leaks.ts';
import { get } from '../support/oci-client.ts';

const sampleIntervalMs = 500;
const mebibyte = 1024 * 1024;
const usedMetrics = /^(?:nodejs_heap_size_used_bytes|nodejs_external_memory_bytes) (\d+)$/gm;

interface Sample {
  readonly atMs: number;
  /** What the system gives it. */
  readonly resident: number;
  /** Objects and buffers, garbage among them. */
  readonly used: number;
}

/** The memory of a process over time. */
export class MemoryWatch {
  readonly #pid: number;
  readonly #adminPort: number;
  readonly #samples: Sample[] = [];

  constructor(process: { readonly pid: number; readonly adminPort: number }) {
    this.#pid = process.pid;
    this.#adminPort = process.adminPort;
  }

  /** Samples until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { body } = await get(`http://127.0.0.1:${this.#adminPort}/metrics`);
      const used = [...body.toString('utf8').matchAll(usedMetrics)]
        .map(([, bytes]) => Number(bytes))
        .reduce((sum, bytes) => sum + bytes, 0);
      const resident = await residentBytes(this.#pid);
      this.#samples.push({ atMs: performance.now(), resident, used });
      await delay(sampleIntervalMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** The most resident memory there was, MiB. */
  get peakMib(): number {
    return Math.max(...this.#samples.map(({ resident }) => resident)) / mebibyte;
  }

  /** Of the last third of the time: the least that was used, MiB. */
  get floorMib(): number {
    return floorOf(this.#third(2)) / mebibyte;
  }

  /**
   * How fast what is used grows, MiB a minute. Garbage comes and goes, so the least of the last
   * third of the time is held against the least of the second; the first is for getting going.
   */
  get slopeMibPerMinute(): number {
    const [earlier, later] = [this.#third(1), this.#third(2)];
    const minutes = (later[0]!.atMs - earlier[0]!.atMs) / 60_000;
    return (floorOf(later) - floorOf(earlier)) / mebibyte / minutes;
  }

  #third(index: 1 | 2): readonly Sample[] {
    const length = Math.floor(this.#samples.length / 3);
    return this.#samples.slice(index * length, (index + 1) * length);
  }
}

function floorOf(samples: readonly Sample[]): number {
  return Math.min(...samples.map(({ used }) => used));
}
