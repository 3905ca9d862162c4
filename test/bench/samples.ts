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

/** What one side of paired samples has more than the other, pair by pair. */
export function added(own: readonly number[], base: readonly number[]): number[] {
  if (own.length !== base.length) {
    throw new Error(`Cannot pair ${own.length} samples with ${base.length}`);
  }
  return own.map((value, index) => value - base[index]!);
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
