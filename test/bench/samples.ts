/**
 * The value that a share of all samples does not exceed: the nearest-rank percentile, which is
 * always one of the samples.
 *
 * @param share above 0 and up to 1; 0.99 is what people call p99
 * @throws when there are no samples, or the share is none
 */
export function percentile(samples: readonly number[], share: number): number {
  if (!(share > 0 && share <= 1)) throw new Error(`Cannot take a share of ${share}`);
  const sorted = samples.toSorted((left, right) => left - right);
  const value = sorted[Math.ceil(sorted.length * share) - 1];
  if (value === undefined) throw new Error('Cannot take a percentile of nothing');
  return value;
}

/** What was measured of two sides that took turns. */
export interface SidedSamples {
  readonly own: readonly number[];
  readonly base: readonly number[];
}

/**
 * How much more one side has at a percentile than the other has at the same one. Trouble of the
 * machine that hits both sides alike cancels out, which it does not in differences of single pairs.
 *
 * @param share as in {@link percentile}
 * @throws when a side has no samples
 */
export function addedAt({ own, base }: SidedSamples, share: number): number {
  return percentile(own, share) - percentile(base, share);
}

/**
 * How many requests asked for one path, whatever their query.
 *
 * @param requests as an access log has them: HEAD and GET count alike
 */
export function countRequests(
  requests: readonly { readonly path: string }[],
  path: string,
): number {
  return requests.filter((request) => request.path.split('?', 1)[0] === path).length;
}
