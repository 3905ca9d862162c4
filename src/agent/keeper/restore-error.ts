/** Why content that was fetched could not be put where it belongs. */
export type RestoreFailure =
  /** Another namespace of containerd holds the same wrong file, so that it cannot go. */
  | 'shared_file'
  /** It would fill the disk more than is allowed. */
  | 'disk_pressure'
  /** Nobody knows how full the disk is. */
  | 'disk_unknown'
  /** The store has no room, or refuses. */
  | 'refused';

/** Content that could not be put right in the store. */
export class RestoreError extends Error {
  override readonly name = 'RestoreError';
  readonly reason: RestoreFailure;

  constructor(reason: RestoreFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
