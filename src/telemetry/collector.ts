import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collects what is no longer used, and returns when that is done. */
export type Collect = (
  options:
    | { readonly type: 'minor'; readonly execution: 'sync' }
    | { readonly type: 'major'; readonly execution: 'sync'; readonly flavor: 'last-resort' },
) => void;

/**
 * V8's own `gc`, which is not there unless Node was started with a flag for it. The flag stays set:
 * the watchdog's thread sets it, too, and it means nothing to what has been made before.
 */
export function openCollector(): Collect {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as Collect;
}
