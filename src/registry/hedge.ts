import { BusyError } from './byte-budget.ts';
import type { Patience } from './patience.ts';

/** How the two sides of a hedged question ended. */
export type Hedged<U, P> =
  | { readonly from: 'upstream'; readonly value: U }
  | { readonly from: 'peers'; readonly value: P }
  | {
      readonly from: 'nobody';
      readonly upstream: { readonly value: U } | { readonly error: unknown };
    };

export interface HedgeOptions<U, P> {
  readonly signal: AbortSignal;
  /** Which side starts at once. The other one follows after `hedgeMs`, or when that one fails. */
  readonly first: 'upstream' | 'peers';
  readonly hedgeMs: number;
  /**
   * With nodes that give no answer; none unless told. It hangs on what the upstream says, which is
   * asked as soon as somebody would wait.
   */
  readonly patience?: Pick<Patience, 'follow' | 'needed'>;
  /** @param trouble to be called as soon as it is clear that help is needed */
  upstream(signal: AbortSignal, trouble: () => void): Promise<U>;
  /** @returns undefined when no node can help */
  peers(signal: AbortSignal): Promise<P | undefined>;
  /** Whether the upstream's answer settles the matter; "not found" does not. */
  isFinal(value: U): boolean;
  discardUpstream(value: U): void;
  discardPeers(value: P): void;
}

type Settled<T> = { readonly value: T } | { readonly error: unknown };

/**
 * Asks the upstream and the nodes for the same content, one side a little after the other, takes
 * what comes first and lets the other side go. Fit for content that its digest names, since it
 * does not matter then who gives it.
 *
 * @throws BusyError as soon as one side has no memory for the content: it needs as much from the other
 */
export async function hedge<U, P>(options: HedgeOptions<U, P>): Promise<Hedged<U, P>> {
  const { signal, first, patience } = options;
  const upstreamStop = new AbortController();
  const peersStop = new AbortController();
  const second = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => second.resolve(undefined), options.hedgeMs);
  const turn = async (side: 'upstream' | 'peers'): Promise<void> => {
    if (side !== first) await second.promise;
  };

  const trouble = (): void => second.resolve(undefined);
  const upstream = settle(async () => {
    await turn('upstream');
    const stop = AbortSignal.any([signal, upstreamStop.signal]);
    if (patience === undefined) return options.upstream(stop, trouble);
    return patience.follow((onTrouble) => options.upstream(stop, onTrouble), trouble);
  });
  const peers = settle(async () => {
    await turn('peers');
    void patience?.needed.then(trouble);
    return options.peers(AbortSignal.any([signal, peersStop.signal]));
  });
  const stopPeers = (): void => {
    peersStop.abort();
    void peers.then((late) => {
      if ('value' in late && late.value !== undefined) options.discardPeers(late.value);
    });
  };
  const stopUpstream = (): void => {
    upstreamStop.abort();
    void upstream.then((late) => {
      if ('value' in late) options.discardUpstream(late.value);
    });
  };
  try {
    const winner = await Promise.race([
      upstream.then((outcome) => ({ side: 'upstream' as const, outcome })),
      peers.then((outcome) => ({ side: 'peers' as const, outcome })),
    ]);
    if (isBusy(winner.outcome)) throw winner.outcome.error;
    if (winner.side === 'upstream') {
      const { outcome } = winner;
      if ('value' in outcome && options.isFinal(outcome.value)) {
        stopPeers();
        return { from: 'upstream', value: outcome.value };
      }
      second.resolve(undefined);
      const helped = await peers;
      if (isBusy(helped)) throw helped.error;
      return conclude(outcome, helped, options);
    }
    if ('value' in winner.outcome && winner.outcome.value !== undefined) {
      stopUpstream();
      return { from: 'peers', value: winner.outcome.value };
    }
    second.resolve(undefined);
    const outcome = await upstream;
    if (isBusy(outcome)) throw outcome.error;
    if ('value' in outcome && options.isFinal(outcome.value)) {
      return { from: 'upstream', value: outcome.value };
    }
    return { from: 'nobody', upstream: outcome };
  } catch (error) {
    stopUpstream();
    stopPeers();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function isBusy(outcome: Settled<unknown>): outcome is { readonly error: BusyError } {
  return 'error' in outcome && outcome.error instanceof BusyError;
}

function conclude<U, P>(
  upstream: Settled<U>,
  peers: Settled<P | undefined>,
  options: Pick<HedgeOptions<U, P>, 'discardUpstream'>,
): Hedged<U, P> {
  if ('value' in peers && peers.value !== undefined) {
    if ('value' in upstream) options.discardUpstream(upstream.value);
    return { from: 'peers', value: peers.value };
  }
  return { from: 'nobody', upstream };
}

function settle<T>(run: () => Promise<T>): Promise<Settled<T>> {
  return run().then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
}
