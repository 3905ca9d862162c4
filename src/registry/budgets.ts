/** How long each wait of a pull may take, in milliseconds. */
export interface Budgets {
  /** Opening one connection to an upstream. */
  readonly connectMs: number;
  /** From a request for a digest until nodes are asked beside the upstream. */
  readonly hedgeMs: number;
  /** The first bytes from a node that said it holds the blob. */
  readonly peerHeadersMs: number;
  /** A 503 when the upstream is in outage and no node can help. */
  readonly outageAnswerMs: number;
  /** An upstream that is slow, but alive. */
  readonly upstreamHeadersMs: number;
  /** A body without progress. */
  readonly stallMs: number;
  /** Finding holders. */
  readonly locateMs: number;
  /** Between the two failures that prove an outage, at least. */
  readonly proofGapMs: number;
  /** Between two looks at an upstream in outage. */
  readonly probeIntervalMs: number;
}

/** How much may be in flight or kept. */
export interface Limits {
  /** Requests being answered at once. */
  readonly maxStreams: number;
  /** Connections without a request. */
  readonly maxIdleConnections: number;
  readonly maxManifestBytes: number;
  readonly manifestCacheBytes: number;
  readonly maxHeaderBytes: number;
  /** Connections to one origin. */
  readonly upstreamConnections: number;
  /** A client that takes no byte for this long is let go. */
  readonly clientStallMs: number;
}
