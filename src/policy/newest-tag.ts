import type { TagStatement } from '../rpc/agent-protocol.ts';

/** Clocks differ; a statement from further in the future than this is not believed. */
const MAX_CLOCK_SKEW_MS = 60_000;

/**
 * The statement to believe: the newest that an upstream confirmed, else the newest record of a
 * store.
 *
 * @param nowMs the present; statements from the future are not believed
 */
export function newestTag(
  holders: readonly { readonly tags: readonly TagStatement[] }[],
  nowMs: number,
): TagStatement | undefined {
  const limitMs = nowMs + MAX_CLOCK_SKEW_MS;
  const tags = holders.flatMap((holder) => holder.tags);
  const newestBy = (time: (tag: TagStatement) => number | undefined): TagStatement | undefined => {
    let newest: TagStatement | undefined;
    for (const tag of tags) {
      const ms = time(tag);
      if (ms === undefined || ms > limitMs) continue;
      if (newest === undefined || ms > (time(newest) ?? 0)) newest = tag;
    }
    return newest;
  };
  return newestBy((tag) => tag.observedAtMs) ?? newestBy((tag) => tag.recordedAtMs);
}
