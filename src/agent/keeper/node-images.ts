import type { Digest } from '../../oci/digest.ts';
import type { StoreCallOptions } from '../store.ts';
import type { GuardedImage } from './guard-lease.ts';

/** An image that the runtime has, and how much of it is there. */
export interface NodeImage extends GuardedImage {
  /** All that this node's platform needs is there. */
  readonly isComplete: boolean;
  /** A container was made from it. */
  readonly isInUse: boolean;
}

/** The runtime's images. Throws a StoreUnavailableError when it cannot be asked. */
export interface NodeImages {
  /** Every image with what of it is there; one entry for all names of the same target. */
  list(options: StoreCallOptions): Promise<readonly NodeImage[]>;
  /** What all names point at, at once. */
  targets(options: StoreCallOptions): Promise<ReadonlySet<Digest>>;
}
