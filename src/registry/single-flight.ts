interface Flight<T> {
  readonly result: Promise<T>;
  readonly stop: AbortController;
  passengers: number;
}

/**
 * Lets requests that ask the same thing at the same time share one answer. The work goes on as
 * long as one of them waits.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /**
   * @param key what makes two requests the same, their credentials included
   * @param signal of this request alone
   * @throws what the work throws; the signal's reason when this request has gone
   */
  async run(
    key: string,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#start(key, work);
    flight.passengers += 1;
    const leave = (): void => {
      flight.passengers -= 1;
      if (flight.passengers === 0) {
        flight.stop.abort();
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      }
    };
    const gone = Promise.withResolvers<never>();
    const onAbort = (): void => gone.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([flight.result, gone.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      leave();
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const stop = new AbortController();
    const result = work(stop.signal).finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    // Everybody may have left before it fails.
    result.catch(() => undefined);
    const flight: Flight<T> = { result, stop, passengers: 0 };
    this.#flights.set(key, flight);
    return flight;
  }
}
