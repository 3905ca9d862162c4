import { setImmediate as nextTurn } from 'node:timers/promises';

interface Flight<T> {
  readonly result: Promise<T>;
  readonly stop: AbortController;
  passengers: number;
  /** All that have come, those who have left since included. */
  joined: number;
}

/**
 * Lets requests that ask the same thing at the same time share one answer. The work goes on as
 * long as one of them waits.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();
  readonly #maxBoardingMs: number;
  readonly #turn: () => Promise<unknown>;
  readonly #now: () => number;

  /**
   * @param options.maxBoardingMs as long as every turn of the event loop brings others who ask the
   *   same, the work waits for them, up to that many milliseconds: of a crowd that takes longer to
   *   read than the work takes, each handful would else have work of its own done. 0, unless told:
   *   it begins at once
   * @param dependencies.turn ends when all that had arrived has been read
   */
  constructor(
    options: { readonly maxBoardingMs?: number } = {},
    dependencies: { turn?: () => Promise<unknown>; now?: () => number } = {},
  ) {
    this.#maxBoardingMs = options.maxBoardingMs ?? 0;
    this.#turn = dependencies.turn ?? nextTurn;
    this.#now = dependencies.now ?? (() => performance.now());
  }

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
    flight.joined += 1;
    const leave = (): void => {
      flight.passengers -= 1;
      // Work that is over needs no telling, which would cost as much as all else here.
      if (flight.passengers > 0 || this.#flights.get(key) !== flight) return;
      this.#flights.delete(key);
      flight.stop.abort();
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
    const departed = this.#maxBoardingMs === 0 ? work(stop.signal) : this.#board(key, stop, work);
    const result = departed.finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    // Everybody may have left before it fails.
    result.catch(() => undefined);
    const flight: Flight<T> = { result, stop, passengers: 0, joined: 0 };
    this.#flights.set(key, flight);
    return flight;
  }

  async #board(
    key: string,
    stop: AbortController,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { signal } = stop;
    const untilMs = this.#now() + this.#maxBoardingMs;
    // Whoever opens the flight is no newcomer.
    let before = 1;
    for (;;) {
      await this.#turn();
      signal.throwIfAborted();
      const { joined = 0 } = this.#flights.get(key) ?? {};
      if (joined <= before || this.#now() >= untilMs) return work(signal);
      before = joined;
    }
  }
}
