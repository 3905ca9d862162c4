import { openCollector } from '../telemetry/collector.ts';

/**
 * Gives back what compiling and loading modules has left in memory: about 15 MB of a process that
 * then sits idle and would keep it for hours. Stops the process for some 30 ms, so it is meant to
 * be called once, when everything has started.
 */
export function releaseStartupMemory(): void {
  // V8 collects so thoroughly only near the end of its memory, or when asked in this way.
  openCollector()({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}
