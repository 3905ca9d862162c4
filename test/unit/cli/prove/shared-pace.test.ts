import { describe, expect, test } from 'vitest';
import { SharedPace } from '../../../../src/cli/prove/shared-pace.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const never = new AbortController().signal;

describe('SharedPace', () => {
  test('SharedPace holds several workers together to one rate', async () => {
    const clock = new FakeClock();
    const startedAtMs = clock.now();
    const pace = new SharedPace({ bytesPerSecond: 1000 }, { clock });
    const takes = [1, 2, 3].map(() => pace.take(1000, { signal: never }));
    const over = { now: false };
    const all = Promise.all(takes).then(() => (over.now = true));
    while (!over.now) {
      await Promise.race([clock.untilSleeping(), all]);
      clock.advance(10);
      await Promise.resolve();
    }
    // The first 10 ms may be had on credit each time.
    expect(clock.now() - startedAtMs).toBeGreaterThanOrEqual(3000 - 30);
  });

  test('SharedPace lets others go on when one is stopped', async () => {
    const clock = new FakeClock();
    const pace = new SharedPace({ bytesPerSecond: 1000 }, { clock });
    const stop = new AbortController();
    const first = pace.take(60_000, { signal: stop.signal });
    const second = pace.take(1, { signal: never });
    await clock.untilSleeping();
    stop.abort(new Error('stopped'));
    await expect(first).rejects.toThrow('stopped');
    clock.advance(61_000);
    await second;
    expect(clock.sleeping).toBe(0);
  });
});
