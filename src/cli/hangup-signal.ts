import type { SignalSource } from './shutdown-signal.ts';

/** The wish of somebody outside that the configuration be read again. */
export interface Hangups extends Disposable {
  /** Has `listener` called at each SIGHUP, and at once when one came earlier. For one listener. */
  listen(listener: () => void): void;
}

/**
 * Takes SIGHUP, which would end the process otherwise, from the beginning on. Disposing gives it
 * back.
 */
export function listenForHangups(source: Pick<SignalSource, 'on' | 'off'>): Hangups {
  let isEarly = false;
  let notify = (): void => void (isEarly = true);
  const onSignal = (): void => notify();
  source.on('SIGHUP', onSignal);
  return {
    listen: (listener) => {
      notify = listener;
      if (isEarly) listener();
    },
    [Symbol.dispose]: () => void source.off('SIGHUP', onSignal),
  };
}
