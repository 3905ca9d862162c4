/**
 * What one streamed body is taken to hold at most, in bytes. When its client takes nothing, 192 KiB
 * wait at the socket (write-batch.ts) and the relay keeps back one chunk; behind it, the reader of
 * the upstream's socket has filled its buffer of 64 KiB and one read of it, and stops. Chunks of
 * nodes are 128 KiB each by default, so that one of them replaces several of those.
 */
export const STREAM_SHARE_BYTES = 512 * 1024;

/** There is no memory left for what would have to be held: the request has to come again. */
export class BusyError extends Error {
  override readonly name = 'BusyError';
}

/** What a budget and its leases share. */
interface Account {
  /** @returns false when there is not so much left */
  charge(bytes: number): boolean;
  refund(bytes: number): void;
  /** Counts a buffer, once for all that hold it. */
  enter(buffer: Buffer): void;
  leave(buffer: Buffer): void;
}

/**
 * The bytes that a process holds for requests that are under way, within one bound. Whoever holds
 * bytes takes a lease, and gives it back when they are gone.
 */
export class ByteBudget {
  readonly #limitBytes: number;
  readonly #onChange: (usedBytes: number) => void;
  /** How many leases hold a buffer. */
  readonly #holders = new WeakMap<Buffer, number>();
  readonly #account: Account;
  #usedBytes = 0;

  /** @param dependencies.onChange told how much is in use, at each change */
  constructor(
    options: { readonly limitBytes: number },
    dependencies: { onChange?: (usedBytes: number) => void } = {},
  ) {
    this.#limitBytes = options.limitBytes;
    this.#onChange = dependencies.onChange ?? (() => undefined);
    this.#account = {
      charge: (bytes) => this.#charge(bytes),
      refund: (bytes) => this.#use(-bytes),
      enter: (buffer) => this.#enter(buffer),
      leave: (buffer) => this.#leave(buffer),
    };
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** @returns undefined when there is not so much left */
  take(bytes: number): ByteLease | undefined {
    return this.#charge(bytes) ? new ByteLease(this.#account, bytes) : undefined;
  }

  /** A lease of nothing, which can grow. */
  open(): ByteLease {
    return new ByteLease(this.#account, 0);
  }

  #charge(bytes: number): boolean {
    if (bytes > this.#limitBytes - this.#usedBytes) return false;
    this.#use(bytes);
    return true;
  }

  #use(bytes: number): void {
    this.#usedBytes += bytes;
    this.#onChange(this.#usedBytes);
  }

  #enter(buffer: Buffer): void {
    const holders = this.#holders.get(buffer) ?? 0;
    this.#holders.set(buffer, holders + 1);
    if (holders === 0) this.#use(buffer.length);
  }

  #leave(buffer: Buffer): void {
    const holders = (this.#holders.get(buffer) ?? 1) - 1;
    if (holders > 0) {
      this.#holders.set(buffer, holders);
      return;
    }
    this.#holders.delete(buffer);
    this.#use(-buffer.length);
  }
}

/** Bytes of a budget that somebody holds. */
export class ByteLease {
  readonly #account: Account;
  readonly #buffers = new Set<Buffer>();
  #bytes: number;
  #isReleased = false;

  /** Made by {@link ByteBudget} alone, which has charged the bytes. */
  constructor(account: Account, bytes: number) {
    this.#account = account;
    this.#bytes = bytes;
  }

  /** @returns false when the budget has not so much left, or this lease is over: nothing changes */
  grow(bytes: number): boolean {
    if (this.#isReleased || !this.#account.charge(bytes)) return false;
    this.#bytes += bytes;
    return true;
  }

  /**
   * Counts a buffer that is in memory already, once for all leases that hold it. Never refused,
   * since refusing would not free it: it was read under a lease, or a cache has it within a bound
   * of its own. A lease that is over holds nothing.
   */
  hold(buffer: Buffer): void {
    if (this.#isReleased || this.#buffers.has(buffer)) return;
    this.#buffers.add(buffer);
    this.#account.enter(buffer);
  }

  /** Gives everything back; a second time does nothing. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    if (this.#bytes > 0) this.#account.refund(this.#bytes);
    for (const buffer of this.#buffers) this.#account.leave(buffer);
    this.#buffers.clear();
  }
}
