import { setFlagsFromString } from 'node:v8';

/**
 * Makes V8 collect what passes through as cheaply as it can, for a process that holds little and
 * moves much. To be called before the first collection, since V8 looks at these when one ends.
 *
 * Chunks of blobs live outside V8's heap but count against its limit, which follows the heap's
 * size: with 20 MB in it, V8 would search all of the heap after every few megabytes. Twice the
 * heap's size is enough for the small collections (passed-bytes.ts) to come first; they free the
 * same chunks at a hundredth of the cost, provided that the space they look at stays small. With
 * more than twice, chunks that slow readers made old would wait for longer: 64 of them, 70 MB.
 */
export function limitHeapForStreams(): void {
  setFlagsFromString('--heap-growing-percent=100');
  setFlagsFromString('--semi-space-growth-factor=1');
}
