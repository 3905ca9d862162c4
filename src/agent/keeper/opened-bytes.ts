/** Bytes of a blob from an offset on. */
export interface OpenedBytes {
  /** Of the whole blob, where the source says it. */
  readonly sizeBytes?: number;
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Ends the stream. Harmless when it has ended. */
  cancel(): void;
}
