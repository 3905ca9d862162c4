/**
 * Waits for work, but not too long.
 *
 * @param timeoutMs milliseconds
 * @param signal ends the wait, too
 * @returns undefined when it takes longer or the signal aborts; the work goes on then
 * @throws what the work throws in time
 */
export async function within<T>(
  timeoutMs: number,
  work: Promise<T>,
  signal?: AbortSignal,
): Promise<T | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const end = (): void => resolve(undefined);
  const timer = setTimeout(end, timeoutMs);
  signal?.addEventListener('abort', end, { once: true });
  if (signal?.aborted === true) end();
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
  }
}

/**
 * Lets time pass.
 *
 * @param durationMs milliseconds; none or less: does not wait
 * @param signal ends the wait, too
 */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (durationMs > 0) await within(durationMs, new Promise(() => undefined), signal);
}
