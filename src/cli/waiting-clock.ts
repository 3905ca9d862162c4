import { setTimeout as wait } from 'node:timers/promises';

import type { Clock } from '../telemetry/clock.ts';

/** For commands: unlike the clock of servers it keeps the process alive, as all there is to do is to wait. */
export const waitingClock: Clock = {
  now: () => Date.now(),
  sleep: (durationMs, { signal }) => wait(durationMs, undefined, { signal }),
};
