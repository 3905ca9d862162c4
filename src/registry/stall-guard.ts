import { SourceError, type OpenedBody } from './sources/source.ts';

/** A source must bring at least this much within the stall time; less is a trickle. */
const MIN_PROGRESS_BYTES = 4096;

/**
 * Passes on a body's chunks and cancels it when it stalls or trickles. Time that the reader takes
 * does not count.
 *
 * @param stallMs milliseconds without progress
 * @throws SourceError with the outcome "stalled"; whatever else the body throws is wrapped in one
 */
export async function* withStallGuard(
  body: Pick<OpenedBody, 'chunks' | 'cancel' | 'source'>,
  stallMs: number,
): AsyncGenerator<Buffer> {
  const state = { waiting: false, stalled: false, waitStartedMs: 0 };
  let waitedMs = 0;
  let bytesSinceProgress = 0;
  const timer = setInterval(
    () => {
      const { waiting, waitStartedMs } = state;
      if (!waiting || waitedMs + performance.now() - waitStartedMs < stallMs) return;
      state.stalled = true;
      body.cancel();
    },
    Math.max(10, stallMs / 10),
  );
  const chunks = body.chunks[Symbol.asyncIterator]();
  try {
    for (;;) {
      state.waitStartedMs = performance.now();
      state.waiting = true;
      const next = await chunks.next();
      state.waiting = false;
      if (next.done === true) {
        // A cancelled body may end without an error.
        if (state.stalled) throw new SourceError('stalled', 'no progress');
        return;
      }
      waitedMs += performance.now() - state.waitStartedMs;
      bytesSinceProgress += next.value.length;
      if (bytesSinceProgress >= MIN_PROGRESS_BYTES) waitedMs = bytesSinceProgress = 0;
      yield next.value;
    }
  } catch (error) {
    if (state.stalled) {
      throw new SourceError('stalled', `${body.source} made no progress for ${stallMs} ms`, {
        cause: error,
      });
    }
    if (error instanceof SourceError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SourceError('cut', `${body.source} broke off: ${reason}`, { cause: error });
  } finally {
    clearInterval(timer);
  }
}
