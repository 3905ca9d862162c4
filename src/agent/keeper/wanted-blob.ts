import type { Digest } from '../../oci/digest.ts';

/** A place at an upstream where content can be asked for. */
export interface Repository {
  /** Host with optional port, as image names write it. */
  readonly registry: string;
  readonly repository: string;
}

/** One blob to be fetched. */
export interface WantedBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Whether upstreams have it under /manifests/ and not under /blobs/. */
  readonly isManifest: boolean;
  /** Where it can be asked for, in this order; none: only at nodes. */
  readonly repositories: readonly Repository[];
}
