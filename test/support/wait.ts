import { connect, type NetConnectOpts } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const pollIntervalMs = 20;

/** How long to wait, in milliseconds, and for what. */
export interface WaitOptions {
  readonly timeoutMs?: number;
  /** Ends the message of the error: "Cannot see <what> within 1000 ms". */
  readonly what?: string;
  /** Text to add to the error, such as the end of a log. */
  readonly detail?: () => string;
  /** Gives up at once, for instance because the program has ended. */
  readonly signal?: AbortSignal;
}

/**
 * Asks again and again until there is an answer.
 *
 * @param probe undefined or false: not yet
 * @returns the first other answer
 * @throws when the deadline passes (10 s unless told) or the signal aborts
 */
export async function waitFor<T>(
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  { timeoutMs = 10_000, what = 'it', detail, signal }: WaitOptions = {},
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer !== undefined && answer !== false) return answer;
    const ended = signal?.aborted === true;
    if (ended || performance.now() >= deadline) {
      const reason = ended ? String(signal.reason) : `within ${timeoutMs} ms`;
      const more = detail?.() ?? '';
      throw new Error(`Cannot see ${what}: ${reason}${more === '' ? '' : `\n${more}`}`);
    }
    await delay(pollIntervalMs);
  }
}

/** Waits until something accepts connections on a loopback port. */
export async function waitForPort(port: number, options: WaitOptions = {}): Promise<void> {
  await waitFor(() => canConnect({ host: '127.0.0.1', port }), {
    what: `a listener on port ${port}`,
    ...options,
  });
}

/** Waits until something accepts connections on a unix socket. */
export async function waitForSocket(path: string, options: WaitOptions = {}): Promise<void> {
  await waitFor(() => canConnect({ path }), { what: `a listener on ${path}`, ...options });
}

async function canConnect(options: NetConnectOpts): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ ...options, timeout: 1000 });
  socket.once('connect', () => resolve(true));
  socket.once('error', () => resolve(false));
  socket.once('timeout', () => resolve(false));
  return promise.finally(() => socket.destroy());
}
