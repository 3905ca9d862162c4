import { constants } from 'node:os';

const names = ['SIGTERM', 'SIGINT'] as const;

export type SignalName = (typeof names)[number] | 'SIGHUP';

/** The part of `process` that is needed, so that tests need not send signals to themselves. */
export interface SignalSource {
  on(name: SignalName, listener: (name: SignalName) => void): unknown;
  off(name: SignalName, listener: (name: SignalName) => void): unknown;
  exit(code: number): void;
}

export interface ShutdownSignal extends Disposable {
  /** Aborts at the first SIGTERM or SIGINT. */
  readonly signal: AbortSignal;
}

/**
 * Turns SIGTERM and SIGINT into an `AbortSignal`. A second signal, of either kind, ends the
 * process at once with 128 plus its number. Disposing gives the signals back.
 */
export function listenForShutdown(source: SignalSource): ShutdownSignal {
  const controller = new AbortController();
  const listener = (name: SignalName): void => {
    if (controller.signal.aborted) {
      source.exit(128 + constants.signals[name]);
      return;
    }
    controller.abort(new Error(`Received ${name}`));
  };
  for (const name of names) {
    source.on(name, listener);
  }
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of names) {
        source.off(name, listener);
      }
    },
  };
}
