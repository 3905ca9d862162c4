import type { Clock } from '../../telemetry/clock.ts';
import { SELF_TEST_PULL } from '../../oci/self-test.ts';
import { VERSION_HEADER } from '../../oci/version-header.ts';

const RETRY_MS = 500;
const ANSWER_MS = 2000;
/** For a pull: containerd itself goes on to the next host after so long. */
const PULL_MS = 30_000;

export interface SelfTestOptions {
  readonly mirrorUrl: string;
  /** How long to wait for the registry, milliseconds; at least one question is asked. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

/**
 * Asks until Salvor answers /v2/, and refuses a pull as it should: containerd must not be sent to a
 * port where nobody is, or somebody else, or a registry that fails or hangs when it is asked for an
 * image. The pull is one that goes all the way, policies, own agent and other nodes included, and
 * that nobody can answer: it must end in time with an error as OCI has it.
 *
 * No upstream is asked for it, and neither the agent nor any other node need be there, so that a
 * node that starts in an outage passes. For the same reason /readyz is not asked: it waits for
 * registries to have answered.
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
    const answer = await ask(mirrorUrl, signal);
    const failure = 'version' in answer ? await tryPull(mirrorUrl, signal) : answer;
    if (failure === undefined && 'version' in answer) return answer.version;
    signal.throwIfAborted();
    if (leftMs <= RETRY_MS) {
      throw new Error(
        `Cannot send containerd to ${mirrorUrl}: ${failure?.reason ?? ''}; nothing was changed. ` +
          'Start `salvor registry` there, or name its address with --mirror-url',
      );
    }
    await clock.sleep(RETRY_MS, { signal });
  }
}

/** @returns undefined when the pull was refused as it should be */
async function tryPull(
  mirrorUrl: string,
  signal: AbortSignal,
): Promise<{ readonly reason: string } | undefined> {
  try {
    const response = await fetch(new URL(SELF_TEST_PULL, mirrorUrl), {
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(PULL_MS)]),
    });
    const body = (await response.json().catch(() => undefined)) as
      { errors?: readonly { code?: unknown }[] } | undefined;
    const isOciError = typeof body?.errors?.[0]?.code === 'string';
    if ([404, 503].includes(response.status) && isOciError) return undefined;
    return { reason: `it answers a pull with status ${response.status}, see its log` };
  } catch (error) {
    return { reason: `it does not answer a pull (${whatFailed(error)}), see its log` };
  }
}

function whatFailed(error: unknown): string {
  const { cause, name } = error as Error & { cause?: { code?: string } };
  return name === 'TimeoutError' ? 'no answer in time' : (cause?.code ?? 'no answer');
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
    return { reason: whatFailed(error) };
  }
}
