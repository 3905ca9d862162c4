import type { TagStatement } from '../rpc/agent-protocol.ts';

/** Clocks differ; a statement from further in the future than this is not believed. */
const MAX_CLOCK_SKEW_MS = 60_000;

/**
 * The statement to believe: the newest that an upstream confirmed, else the newest record of a
 * store. Of two from the same moment, and upstreams tell time in whole seconds, the digest decides:
 * whoever answers first, every node must come to the same.
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
      const newestMs = newest === undefined ? Number.NEGATIVE_INFINITY : (time(newest) ?? 0);
      const isLater = ms > newestMs || (ms === newestMs && tag.digest > (newest?.digest ?? ''));
      if (isLater) newest = tag;
    }
    return newest;
  };
  return newestBy((tag) => tag.observedAtMs) ?? newestBy((tag) => tag.recordedAtMs);
}
