/** Why content could not be had, in the few kinds that are counted and treated differently. */
export type FetchFailure =
  /** No node has it, and the upstream says the same or cannot be asked for lack of a name. */
  | 'nowhere'
  /** The upstream wants credentials, which this node does not have. */
  | 'needs_credentials'
  /** The upstream cannot be reached, fails, or asks to be left alone. */
  | 'upstream_down'
  /** Nodes have it, but none of them could give it to the end. */
  | 'holders_failed'
  /** Whatever came was not what the digest names. */
  | 'wrong_bytes';

/** Content that could not be fetched. */
export class FetchError extends Error {
  override readonly name = 'FetchError';
  readonly reason: FetchFailure;

  constructor(reason: FetchFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
