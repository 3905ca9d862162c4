/** A bounded number of something at a time, of which one host may have a part. */
export class HostShare {
  readonly #options: { readonly max: number; readonly maxPerHost: number };
  readonly #byHost = new Map<string, number>();
  #total = 0;

  constructor(options: { readonly max: number; readonly maxPerHost: number }) {
    this.#options = options;
  }

  /**
   * Takes one for a host.
   *
   * @returns gives it back, once; undefined when there is none for this host
   */
  take(host: string): (() => void) | undefined {
    const ofHost = this.#byHost.get(host) ?? 0;
    if (this.#total >= this.#options.max || ofHost >= this.#options.maxPerHost) return undefined;
    this.#total += 1;
    this.#byHost.set(host, ofHost + 1);
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      this.#total -= 1;
      const rest = (this.#byHost.get(host) ?? 1) - 1;
      if (rest === 0) this.#byHost.delete(host);
      else this.#byHost.set(host, rest);
    };
  }
}

/** Where a call comes from, without the port. */
export function hostOf(call: { getPeer(): string }): string {
  return call.getPeer().replace(/:\d+$/, '');
}
