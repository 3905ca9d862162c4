import { openCollector, type Collect } from './collector.ts';

/** Bytes that pass until what is left of them is collected. */
const COLLECT_EVERY_BYTES = 8 * 1024 * 1024;

let collect: Collect | undefined;
let passedBytes = 0;

/**
 * Counts bytes of blobs that this process has passed on, and now and then collects the buffers that
 * they were in. To be called for each chunk.
 *
 * Buffers lie outside of V8's heap, which grows so little while they pass that V8 on its own lets
 * tens of megabytes of them wait; those of slow readers then count as old, and are only found when
 * all of the heap is searched. A small collection takes less than a millisecond.
 *
 * @param bytes of the chunk
 */
export function notePassedBytes(bytes: number): void {
  passedBytes += bytes;
  if (passedBytes < COLLECT_EVERY_BYTES) return;
  passedBytes = 0;
  collect ??= openCollector();
  collect({ type: 'minor', execution: 'sync' });
}
