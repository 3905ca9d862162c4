import type { ServerResponse } from 'node:http';

/** How a client took what was written. */
export type ClientWait = 'done' | 'client_gone' | 'client_stalled';

/** When to give a client up. */
export interface ClientPatience {
  /** A client that takes nothing for this long is let go, milliseconds. */
  readonly clientStallMs: number;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
}

/** Waits until the client has taken what was written; one that does not is let go. */
export async function waitForClient(
  response: ServerResponse,
  event: 'drain' | 'finish',
  options: ClientPatience,
): Promise<ClientWait> {
  if (event === 'finish' && response.writableFinished) return 'done';
  const outcome = await new Promise<ClientWait>((resolve) => {
    const settle = (how: ClientWait): void => {
      clearTimeout(timer);
      response.off(event, onEvent);
      options.signal.removeEventListener('abort', onGone);
      resolve(how);
    };
    const onEvent = (): void => settle('done');
    const onGone = (): void => settle('client_gone');
    const timer = setTimeout(() => settle('client_stalled'), options.clientStallMs);
    response.once(event, onEvent);
    options.signal.addEventListener('abort', onGone, { once: true });
    if (options.signal.aborted) onGone();
  });
  if (outcome !== 'done') response.socket?.destroy();
  return outcome;
}
