import type { ServerResponse } from 'node:http';
import type { BodyStream, RelayEnd } from './answer.ts';
import { WrongBytesError } from './relay.ts';

/** How a body was sent. */
export interface SentBody {
  readonly end: RelayEnd | 'client_gone' | 'client_stalled';
  readonly bytes: number;
  readonly error?: unknown;
}

/**
 * Sends a body at the pace of the client. A relay that breaks ends the connection with FIN, so
 * that containerd resumes; one that turned out to be wrong ends it with RST, so that it does not.
 *
 * @param options.clientStallMs a client that takes nothing for this long is let go
 */
export async function writeBody(
  response: ServerResponse,
  body: BodyStream,
  options: { readonly clientStallMs: number; readonly signal: AbortSignal },
): Promise<SentBody> {
  let bytes = 0;
  try {
    for await (const chunk of body.chunks) {
      if (options.signal.aborted) return { end: 'client_gone', bytes };
      bytes += chunk.length;
      if (response.write(chunk)) continue;
      const drained = await drain(response, options);
      if (drained !== 'drained') {
        response.socket?.destroy();
        return { end: drained, bytes };
      }
    }
    response.end();
    return { end: 'complete', bytes };
  } catch (error) {
    if (options.signal.aborted) return { end: 'client_gone', bytes };
    if (error instanceof WrongBytesError) {
      response.socket?.resetAndDestroy();
      return { end: 'wrong_bytes', bytes, error };
    }
    // What is written already still goes out before the FIN.
    response.socket?.destroySoon();
    return { end: 'cut', bytes, error };
  } finally {
    body.cancel();
  }
}

function drain(
  response: ServerResponse,
  options: { readonly clientStallMs: number; readonly signal: AbortSignal },
): Promise<'drained' | 'client_gone' | 'client_stalled'> {
  return new Promise((resolve) => {
    const done = (outcome: 'drained' | 'client_gone' | 'client_stalled'): void => {
      clearTimeout(timer);
      response.off('drain', onDrain);
      options.signal.removeEventListener('abort', onGone);
      resolve(outcome);
    };
    const onDrain = (): void => done('drained');
    const onGone = (): void => done('client_gone');
    const timer = setTimeout(() => done('client_stalled'), options.clientStallMs);
    response.once('drain', onDrain);
    options.signal.addEventListener('abort', onGone, { once: true });
    if (options.signal.aborted) onGone();
  });
}
