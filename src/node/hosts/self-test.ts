import type { Clock } from '../../telemetry/clock.ts';
import { VERSION_HEADER } from '../../oci/version-header.ts';

const RETRY_MS = 500;
const ANSWER_MS = 2000;

export interface SelfTestOptions {
  readonly mirrorUrl: string;
  /** How long to wait for the registry, milliseconds; at least one question is asked. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

/**
 * Asks /v2/ until Salvor answers there: containerd must not be sent to a port where nobody is, or
 * somebody else.
 *
 * @returns Salvor's version
 * @throws when it does not in time, with what to do
 */
export async function selfTest(
  options: SelfTestOptions,
  dependencies: { clock: Clock },
): Promise<string> {
  const { mirrorUrl, signal, waitMs } = options;
  const { clock } = dependencies;
  const endAtMs = clock.now() + waitMs;
  for (;;) {
    const leftMs = endAtMs - clock.now();
    const failure = await ask(mirrorUrl, signal);
    if ('version' in failure) return failure.version;
    signal.throwIfAborted();
    if (leftMs <= RETRY_MS) {
      throw new Error(
        `Cannot send containerd to ${mirrorUrl}: ${failure.reason}; nothing was changed. ` +
          'Start `salvor registry` there, or name its address with --mirror-url',
      );
    }
    await clock.sleep(RETRY_MS, { signal });
  }
}

async function ask(
  mirrorUrl: string,
  signal: AbortSignal,
): Promise<{ readonly version: string } | { readonly reason: string }> {
  try {
    const response = await fetch(new URL('/v2/', mirrorUrl), {
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    });
    await response.body?.cancel();
    const version = response.headers.get(VERSION_HEADER);
    if (response.status === 200 && version !== null) return { version };
    return { reason: `something else answers there (status ${response.status})` };
  } catch (error) {
    const { cause, name } = error as Error & { cause?: { code?: string } };
    const what = name === 'TimeoutError' ? 'no answer in time' : (cause?.code ?? 'no answer');
    return { reason: what };
  }
}
