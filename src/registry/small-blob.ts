import type { Digest } from '../oci/digest.ts';
import { BusyError, type ByteLease } from './byte-budget.ts';
import { Relay, type BlobTap, type NextSource } from './relay.ts';
import { stretchOf } from './sources/peers.ts';
import type { OpenedBody, Stretch, Wanted } from './sources/source.ts';

/**
 * Blobs up to this size are held until all of them is known to be right; from nodes they are looked
 * at, too: a manifest must not pass for a blob.
 */
export const HELD_BLOB_BYTES = 1024 * 1024;

export interface SmallBlobOptions {
  readonly digest: Digest;
  readonly wanted: Wanted;
  /** As in RelayOptions. */
  readonly stallMs: number;
  readonly maxIdleSwitches: number;
  /** Sources that claim more are no longer a small blob. */
  readonly maxBytes: number;
}

/**
 * A blob small enough to be held, or a part of one: nothing of it goes out before all of it is
 * known to be right. Until then not even its size is believed, so that a source that lies about
 * it is left like one that lies about bytes.
 */
export class SmallBlob {
  readonly #options: SmallBlobOptions;
  readonly #nextSource: NextSource;
  readonly #lease: Pick<ByteLease, 'grow'>;
  readonly #tap: (sizeBytes: number) => Promise<BlobTap | undefined>;
  #relay: Relay | undefined;
  #body: OpenedBody;
  #sizeIsOut = false;
  #paidBytes = 0;

  constructor(
    options: SmallBlobOptions,
    dependencies: {
      first: OpenedBody;
      nextSource: NextSource;
      /** Pays for what is held, also when it has been read. */
      lease: Pick<ByteLease, 'grow'>;
      /** Asked once for each size that turns up. */
      tap: (sizeBytes: number) => Promise<BlobTap | undefined>;
    },
  ) {
    this.#options = options;
    this.#body = dependencies.first;
    this.#nextSource = dependencies.nextSource;
    this.#lease = dependencies.lease;
    this.#tap = dependencies.tap;
  }

  /** Of the whole blob, as the present source says. */
  get sizeBytes(): number {
    return this.#body.sizeBytes;
  }

  /** What is wanted of it. */
  get window(): Stretch {
    return stretchOf(this.#options.wanted, this.sizeBytes);
  }

  /** Who has given bytes so far. */
  get sources(): readonly string[] {
    return this.#relay?.sources ?? [];
  }

  /** From now on no other size will do: a client has been told. */
  fixSize(): void {
    this.#sizeIsOut = true;
  }

  /** Stops whatever source is running. */
  cancel(): void {
    this.#body.cancel();
    this.#relay?.cancel();
  }

  /**
   * The bytes of the window, checked.
   *
   * @throws SourceError when no source is left; BusyError when there is no memory for it
   */
  async read(): Promise<Buffer> {
    for (let rounds = 0; ; rounds += 1) {
      this.#pay();
      const round: { other?: OpenedBody } = {};
      const relay = await this.#newRelay(round);
      this.#relay = relay;
      try {
        const parts: Buffer[] = [];
        for await (const part of relay.chunks()) parts.push(part);
        return Buffer.concat(parts);
      } catch (error) {
        const { other } = round;
        if (other === undefined) throw error;
        if (this.#sizeIsOut || rounds === this.#options.maxIdleSwitches) {
          other.cancel();
          throw error;
        }
        this.#body = other;
      }
    }
  }

  #pay(): void {
    const moreBytes = this.sizeBytes - this.#paidBytes;
    if (moreBytes <= 0) return;
    if (!this.#lease.grow(moreBytes)) {
      this.#body.cancel();
      throw new BusyError(`Cannot hold ${this.#options.digest}: too many bytes are in flight`);
    }
    this.#paidBytes += moreBytes;
  }

  async #newRelay(round: { other?: OpenedBody }): Promise<Relay> {
    const { digest, maxBytes, maxIdleSwitches, stallMs } = this.#options;
    const { sizeBytes, window } = this;
    const whole = window.start === 0 && window.end === sizeBytes - 1;
    const nextSource: NextSource = async (failed, error, needed) => {
      // From its first byte: the next source may mean a blob of another size.
      const next = await this.#nextSource(failed, error, { ...needed, start: 0 });
      if (next === undefined || next.sizeBytes === sizeBytes) return next;
      if (next.sizeBytes <= maxBytes) round.other = next;
      else next.cancel();
      return undefined;
    };
    return new Relay(
      { digest, window, sizeBytes, stallMs, maxIdleSwitches },
      { first: this.#body, nextSource, tap: whole ? await this.#tap(sizeBytes) : undefined },
    );
  }
}
