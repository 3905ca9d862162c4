import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { Clock } from '../telemetry/clock.ts';
import { HostShare } from './host-share.ts';
import type { Finding, Integrity } from './integrity.ts';

/** The same blob is hashed for reports once in this time, milliseconds. */
const REPEAT_MS = 60_000;
/** How many blobs' last findings are remembered. */
const MAX_FINDINGS = 4096;
/** How many blobs may wait to be hashed, and how many of them for one host. */
const MAX_WAITING = 64;
const MAX_PER_HOST = 8;

/**
 * Looks at blobs of which other nodes say that they got wrong bytes. Hashing is work, and a report
 * costs nothing and proves nothing: so it happens once a minute for each blob, for few at a time of
 * each host, and at the pace of the background but for the first look at bytes that nobody has hashed.
 */
export class CorruptionReports {
  readonly #integrity: Pick<Integrity, 'recheckForOthers'>;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #running = new Map<Digest, Promise<Finding>>();
  readonly #waiting = new HostShare({ max: MAX_WAITING, maxPerHost: MAX_PER_HOST });
  readonly #findings = new LRUCache<Digest, { readonly finding: Finding; readonly atMs: number }>({
    max: MAX_FINDINGS,
  });

  constructor(dependencies: {
    integrity: Pick<Integrity, 'recheckForOthers'>;
    clock: Pick<Clock, 'now'>;
  }) {
    this.#integrity = dependencies.integrity;
    this.#clock = dependencies.clock;
  }

  /**
   * Hashes a blob that was reported, or says what came of it the last time when that was less than
   * a minute ago. What was known of it stands until it is hashed.
   *
   * @param options.host who reports it
   * @throws StoreUnavailableError when the store cannot be read, and an error when too many wait
   */
  async add(digest: Digest, options: { readonly host: string }): Promise<Finding> {
    const running = this.#running.get(digest);
    if (running !== undefined) return await running;
    const last = this.#findings.get(digest);
    // Bounded on both sides, in case the machine's time is set meanwhile.
    const ageMs = last === undefined ? REPEAT_MS : this.#clock.now() - last.atMs;
    if (last !== undefined && ageMs >= 0 && ageMs < REPEAT_MS) return last.finding;
    const done = this.#waiting.take(options.host);
    if (done === undefined) {
      throw new Error(`Cannot hash ${digest} again: too many reports of ${options.host} wait`);
    }
    const recheck = this.#recheck(digest).finally(done);
    this.#running.set(digest, recheck);
    return await recheck;
  }

  async #recheck(digest: Digest): Promise<Finding> {
    try {
      const finding = await this.#integrity.recheckForOthers(digest);
      this.#findings.set(digest, { finding, atMs: this.#clock.now() });
      return finding;
    } finally {
      this.#running.delete(digest);
    }
  }
}
