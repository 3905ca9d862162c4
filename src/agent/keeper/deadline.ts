import type { Clock } from '../../telemetry/clock.ts';

/**
 * Waits for one step no longer than it may take. What the step does later is nobody's concern, so
 * whoever calls this has to end it.
 *
 * @param step.what for the message: "the next bytes of sha256:… from node/b"
 * @throws what the step throws, the signal's reason, or that nothing came in time
 */
export async function within<T>(
  work: Promise<T>,
  step: {
    readonly timeoutMs: number;
    readonly what: string;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  },
): Promise<T> {
  const done = new AbortController();
  const signal = AbortSignal.any([done.signal, step.signal]);
  const late = step.clock.sleep(step.timeoutMs, { signal }).then(() => {
    throw new Error(`Cannot wait longer for ${step.what}: ${step.timeoutMs} ms have passed`);
  });
  // The loser of the race has nobody else who listens.
  work.catch(() => undefined);
  late.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    done.abort();
  }
}
